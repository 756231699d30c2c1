"""Finished pieces of work to a feature set: groups, splits, audit, files."""

from __future__ import annotations

import datetime
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pyarrow

from pipelines.duplicates import exact_pairs, near_pairs
from pipelines.errors import BuildError
from pipelines.groups import assign_groups
from pipelines.spec import FORMAT_VERSION, SPLITS, Split, SplitSpec, num_frames
from pipelines.splits import TrackInfo, assign_splits, audit
from pipelines.stage import Job, Verdict, clips_file, piece_name, pieces
from pipelines.store import Counts, FeatureSet, Manifest, open_feature_set
from pipelines.tracks import printable
from pipelines.writer import ClipWriter, commit, write_tracks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipelines.catalog import Catalog, Track


def check_splits(tracks: Sequence[Track], spec: SplitSpec) -> None:
    """Tries the split on all listed tracks, before any audio is decoded.

    Raises:
        SplitError: It cannot work even if every file is good.
    """
    groups = assign_groups(tracks, spec)
    assign_splits(_infos(tracks, groups), spec)


def assemble(
    job: Job,
    catalog: Catalog,
    spec: SplitSpec,
    verdicts: Mapping[str, Verdict],
    *,
    final: Path,
    max_bad_share: float,
) -> FeatureSet:
    """Puts the clips of all pieces in their order on their sides and finishes the feature set.

    Args:
        job: the build, with every piece in staging.
        catalog: the listed tracks.
        spec: how they are put on sides.
        verdicts: one for each listed track.
        final: where the set goes; its name is the fingerprint.
        max_bad_share: more rejected files than this share are an error.

    Raises:
        BuildError: Too many files were rejected, or a class lost all of its files.
        SplitError: The groups that are left cannot be put on three sides.
    """
    check_verdicts(catalog.tracks, verdicts, max_bad_share)
    used = [track for track in catalog.tracks if _used(verdicts[track.track_id])]
    copies = _copies(verdicts)
    infos = _infos(used, assign_groups(used, spec, copies))
    sides = assign_splits(infos, spec)

    partial = final.with_name(f"{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shape = (job.feature.n_mels, num_frames(job.clip, job.feature))
    with ClipWriter(partial, shape) as writer:
        rows = _regroup(job, catalog.tracks, sides, writer)
    group = {info.track_id: info.group for info in infos}
    write_tracks(partial, _track_rows(catalog.tracks, verdicts, group, sides))
    manifest = Manifest(
        version=FORMAT_VERSION,
        fingerprint=final.name,
        labels=tuple(sorted({printable(track.label) for track in used})),
        clip=job.clip,
        feature=job.feature,
        split=spec,
        shape=shape,
        tracks=_counts(verdicts),
        clips={split: rows[split] for split in SPLITS},
        classes=_classes(used, sides),
        leakage=audit(infos, sides, copies),
        parts=tuple(writer.parts),
        source=printable(str(catalog.root)),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    commit(partial, final, manifest)
    return open_feature_set(final)


def check_verdicts(
    tracks: Sequence[Track], verdicts: Mapping[str, Verdict], max_bad_share: float
) -> None:
    """Refuses a data set that lost too much.

    Raises:
        BuildError: More than `max_bad_share` of the files were rejected, or all of a class.
    """
    bad = [track for track in tracks if not _used(verdicts[track.track_id])]
    table = reasons_table(tracks, verdicts)
    if len(bad) > max_bad_share * len(tracks):
        raise BuildError(
            f"{len(bad)} of {len(tracks)} files cannot be used, more than the {max_bad_share:.0%} "
            f"that are allowed:\n{table}\n"
            "Repair or remove these files, or allow a larger max_bad_share."
        )
    left = {track.label for track in tracks} - {
        track.label for track in tracks if _used(verdicts[track.track_id])
    }
    if left:
        raise BuildError(
            f"no file of {', '.join(repr(printable(label)) for label in sorted(left))} can be "
            f"used:\n{table}\nRepair the files, or leave the class out."
        )


def reasons_table(tracks: Sequence[Track], verdicts: Mapping[str, Verdict]) -> str:
    """A line for each reason of rejection: code, number of files, an example."""
    example: dict[str, str] = {}
    count: Counter[str] = Counter()
    for track in tracks:
        verdict = verdicts[track.track_id]
        if not _used(verdict):
            count[verdict.reason] += 1
            example.setdefault(verdict.reason, f"{printable(track.path)}: {verdict.detail}")
    return "\n".join(
        f"  {code:<14}{number:>7}  {example[code]}" for code, number in count.most_common()
    )


def _used(verdict: Verdict) -> bool:
    return verdict.verdict != "quarantined"


def _infos(tracks: Sequence[Track], groups: Mapping[str, str]) -> list[TrackInfo]:
    return [
        TrackInfo(track.track_id, track.label, groups[track.track_id], track.columns)
        for track in tracks
    ]


def _copies(verdicts: Mapping[str, Verdict]) -> list[tuple[str, str]]:
    """Pairs of tracks that are the same recording; exact copies are compared once."""
    used = {name: verdict for name, verdict in verdicts.items() if _used(verdict)}
    exact = exact_pairs({name: verdict.digest for name, verdict in used.items()})
    doubles = {other for _, other in exact}
    near = near_pairs({n: verdict.signature for n, verdict in used.items() if n not in doubles})
    return exact + near


def _regroup(
    job: Job, tracks: Sequence[Track], sides: Mapping[str, Split], writer: ClipWriter
) -> Counter[str]:
    """Streams the staged clips to the files of their sides; rows for each side."""
    rows: Counter[str] = Counter()
    for piece in pieces(tracks):
        with (
            pyarrow.memory_map(str(clips_file(job, piece_name(piece)))) as source,
            pyarrow.ipc.open_file(source) as file,
        ):
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                split = sides[batch.column("track_id")[0].as_py()]
                writer.append(split, batch)
                rows[split] += batch.num_rows
    return rows


def _track_rows(
    tracks: Sequence[Track],
    verdicts: Mapping[str, Verdict],
    groups: Mapping[str, str],
    sides: Mapping[str, Split],
) -> list[dict[str, str | float | None]]:
    rows = []
    for track in tracks:
        verdict = verdicts[track.track_id]
        group = groups.get(track.track_id)
        rows.append(
            {
                "track_id": track.track_id,
                "path": printable(track.path),
                "label": printable(track.label),
                "group": None if group is None else printable(group),
                "split": sides.get(track.track_id),
                "verdict": verdict.verdict,
                "reason": verdict.reason,
                "detail": verdict.detail,
                "seconds": verdict.seconds,
            }
        )
    return rows


def _counts(verdicts: Mapping[str, Verdict]) -> Counts:
    count = Counter(verdict.verdict for verdict in verdicts.values())
    return Counts(len(verdicts), count["ok"], count["flagged"], count["quarantined"])


def _classes(tracks: Sequence[Track], sides: Mapping[str, Split]) -> dict[str, dict[str, int]]:
    count = Counter((track.label, sides[track.track_id]) for track in tracks)
    labels = sorted({track.label for track in tracks})
    return {printable(label): {side: count[label, side] for side in SPLITS} for label in labels}
