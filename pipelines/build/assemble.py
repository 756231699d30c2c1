"""Rows and decisions to the files of a finished feature set."""

from __future__ import annotations

import datetime
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.build.writer import (
    Entry,
    PartPlan,
    commit,
    plan_parts,
    reject_rows,
    write_part,
    write_rejects,
    write_tracks,
)
from pipelines.settings import FORMAT_VERSION, SPLITS, Split, SplitSpec, feature_shape
from pipelines.sources.files import printable_root
from pipelines.sources.tracks import printable, shown
from pipelines.store.feature_set import (
    DECODED,
    REJECTS,
    TRACKS,
    FeatureSet,
    file_digest,
    open_feature_set,
)
from pipelines.store.manifest import Counts, Manifest, PartFile, Reason
from pipelines.verdicts import save_verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pipelines.build.decode import Output
    from pipelines.build.reuse import Rows
    from pipelines.sources.tracks import Catalog, Track
    from pipelines.splits.decide import Decision
    from pipelines.verdicts import Verdict

_MAX_EXAMPLES = 5


def assemble(
    catalog: Catalog,
    output: Output,
    split: SplitSpec,
    decision: Decision,
    rows: Mapping[str, Rows],
    final: Path,
) -> FeatureSet:
    """Writes the rows of the used tracks in their order on their sides and finishes the set.

    Args:
        catalog: the listed tracks.
        output: what the set is made with.
        split: how tracks were put on sides.
        decision: what becomes of each track.
        rows: track_id -> where the rows of each used track lie.
        final: where the set goes; its name is the fingerprint.

    Raises:
        OSError: Something cannot be written.
    """
    building = final.with_name(f"{final.name}.partial")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    shape = feature_shape(output.clip, output.feature)
    entries = _entries(decision, rows)
    parts = _write_parts(building, plan_parts(entries, shape))
    write_tracks(building, _track_rows(catalog.tracks, decision))
    judged = ((track, decision.verdicts[track.track_id]) for track in catalog.tracks)
    write_rejects(building / REJECTS, reject_rows(judged))
    save_verdicts(building / DECODED, (decision.decoded[t.track_id] for t in catalog.tracks))
    manifest = Manifest(
        version=FORMAT_VERSION,
        fingerprint=final.name,
        labels=tuple(sorted({printable(track.label) for track in decision.used})),
        clip=output.clip,
        feature=output.feature,
        split=split,
        shape=shape,
        tracks=_counts(decision.verdicts.values()),
        verdicts=_counts_of_classes(catalog.tracks, decision),
        reasons=_reasons(catalog.tracks, decision),
        ignored=catalog.ignored,
        unlisted=len(catalog.unlisted),
        clips={side: sum(entry.num_rows for entry in entries[side]) for side in SPLITS},
        classes=_classes(decision),
        group_source=decision.group_source,
        leakage=decision.leakage,
        parts=tuple(parts),
        tables={name: file_digest(building / name) for name in (TRACKS, DECODED)},
        source=printable_root(catalog.root),
        layout=catalog.layout,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    commit(building, final, manifest)
    return open_feature_set(final)


def _entries(decision: Decision, rows: Mapping[str, Rows]) -> dict[Split, list[Entry]]:
    """The tracks of each side; a track whose clips have sides of their own is on several."""
    entries: dict[Split, list[Entry]] = {side: [] for side in SPLITS}
    for track in decision.used:
        where = decision.sides[track.track_id]
        label, place = printable(track.label), rows[track.track_id]
        if isinstance(where, str):
            entries[where].append(Entry(track.track_id, label, place))
            continue
        for side in SPLITS:
            if clips := tuple(n for n, clip_side in enumerate(where) if clip_side == side):
                entries[side].append(Entry(track.track_id, label, place, clips))
    return entries


def _write_parts(folder: Path, plans: Sequence[PartPlan]) -> list[PartFile]:
    """Several files at a time: Arrow encodes and compresses without the interpreter's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(partial(write_part, folder), plans))


def _track_rows(tracks: Sequence[Track], decision: Decision) -> list[dict[str, Any]]:
    rows = []
    for track in tracks:
        verdict = decision.verdicts[track.track_id]
        group = decision.groups.get(track.track_id) if verdict.used else None
        where = decision.sides.get(track.track_id)
        rows.append(
            {
                "track_id": track.track_id,
                "path": printable(track.path),
                "start_s": track.start_s,
                "end_s": track.end_s,
                "label": printable(track.label),
                "group": None if group is None else printable(group),
                "split": where if where is None or isinstance(where, str) else "several",
                "verdict": verdict.kind,
                "reason": verdict.reason,
                "detail": verdict.detail,
                "seconds": verdict.seconds,
                "clips": verdict.num_clips if verdict.used else 0,
            }
        )
    return rows


def _counts(verdicts: Iterable[Verdict]) -> Counts:
    count = Counter(verdict.kind for verdict in verdicts)
    return Counts(count.total(), count["ok"], count["flagged"], count["quarantined"])


def _counts_of_classes(tracks: Sequence[Track], decision: Decision) -> dict[str, Counts]:
    found: dict[str, list[Verdict]] = {}
    for track in tracks:
        verdict = decision.verdicts[track.track_id]
        found.setdefault(printable(track.label), []).append(verdict)
    return {label: _counts(verdicts) for label, verdicts in sorted(found.items())}


def _reasons(tracks: Sequence[Track], decision: Decision) -> dict[str, Reason]:
    paths: dict[str, list[str]] = {}
    for track in tracks:
        for code in decision.verdicts[track.track_id].reason.split():
            paths.setdefault(code, []).append(shown(track))
    return {
        code: Reason(len(found), tuple(found[:_MAX_EXAMPLES]))
        for code, found in sorted(paths.items())
    }


def _classes(decision: Decision) -> dict[str, dict[str, int]]:
    count: Counter[tuple[str, str]] = Counter()
    for track in decision.used:
        where = decision.sides[track.track_id]
        for side in {where} if isinstance(where, str) else set(where):
            count[track.label, side] += 1
    labels = sorted({track.label for track in decision.used})
    return {printable(label): {side: count[label, side] for side in SPLITS} for label in labels}
