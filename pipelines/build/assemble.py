"""Write a finished feature set: apply the split decisions and merge the decoded rows."""

from __future__ import annotations

import datetime
import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pipelines.build.writer import SplitTrack, plan_parts, write_part, write_rejects, write_tracks
from pipelines.features import FORMAT_VERSION, feature_key
from pipelines.plain_text import escaped, printable
from pipelines.regular_files import file_digest
from pipelines.settings import SPLITS, Split
from pipelines.sources.files import printable_root
from pipelines.sources.tracks import Catalog, Track, shown
from pipelines.storage import Folder
from pipelines.store import (
    DECODED,
    MANIFEST,
    TRACKS,
    Counts,
    FeatureSet,
    Manifest,
    PartFile,
    Reason,
    open_feature_set,
)
from pipelines.verdicts import Verdict, save_verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipelines.build.locks import Locks
    from pipelines.build.reuse import DecodedTrack
    from pipelines.build.tasks import Output
    from pipelines.splits.decide import Decision

_MAX_EXAMPLES = 5
_MAX_COPIES = 100_000  # pairs in a manifest, which is read whole


def assemble(
    catalog: Catalog,
    output: Output,
    decision: Decision,
    decoded: Mapping[str, DecodedTrack],
    target: Folder,
    locks: Locks,
) -> FeatureSet:
    """Write the rows of all used tracks, grouped by split, and commit the feature set.

    Args:
        catalog: Listed tracks.
        output: Settings of the set.
        decision: Decision on each track.
        decoded: track_id -> decoded track with its rows.
        target: Folder of the set; its name is the fingerprint.
        locks: Locks under which it is written.

    Raises:
        OSError: Something cannot be written.
        StorageTakenError: Another process has taken a lock.
    """
    shape = output.feature.shape(output.clip)
    splits = _split_tracks(decision, decoded)
    classes = Counter((track.label, name) for name in SPLITS for track in splits[name])
    labels, tracks = sorted({label for label, _ in classes}), catalog.tracks
    with target.parent.building(target.name, check=locks.check) as scratch:
        folder = Folder(scratch)
        parts = _write_parts(folder, plan_parts(splits, shape), shape)
        write_tracks(folder, _track_rows(tracks, decision))
        write_rejects(folder, ((track, decision.verdicts[track.track_id]) for track in tracks))
        save_verdicts(folder, DECODED, (decision.decoded[track.track_id] for track in tracks))
        manifest = Manifest(
            version=FORMAT_VERSION,
            fingerprint=target.name,
            labels=tuple(labels),
            clip=output.clip,
            feature=output.feature,
            split=decision.spec,
            shape=shape,
            tracks=_counts(decision.verdicts.values()),
            verdicts=_counts_of_classes(tracks, decision),
            reasons=_reasons(tracks, decision),
            ignored=catalog.ignored,
            unlisted=len(catalog.unlisted),
            clips={name: sum(track.num_rows for track in splits[name]) for name in SPLITS},
            classes={label: {name: classes[label, name] for name in SPLITS} for label in labels},
            group_source=decision.group_source,
            leakage=decision.leakage,
            parts=tuple(parts),
            tables={name: file_digest(folder.local(name)) for name in (TRACKS, DECODED)},
            source=printable_root(catalog.root),
            layout=catalog.layout,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            key=feature_key(output.clip, output.feature),
            near_copies=_known_copies(decision),
        )
        folder.write_json(MANIFEST, manifest.model_dump(mode="json"))
    return open_feature_set(target)


def _known_copies(decision: Decision) -> tuple[tuple[str, str], ...] | None:
    """Return the near copies if a later build can rely on them, and has room for them."""
    near, searched = decision.copies.near, decision.copies.searched
    is_whole = all(track.track_id in searched for track in decision.used)
    return near if is_whole and len(near) <= _MAX_COPIES else None


def _split_tracks(
    decision: Decision, decoded: Mapping[str, DecodedTrack]
) -> dict[Split, list[SplitTrack]]:
    """List the tracks of each split; if clips are split one by one, a track is in several."""
    found: dict[Split, list[SplitTrack]] = {split: [] for split in SPLITS}
    for track in decision.used:
        where = decision.splits[track.track_id]
        label, rows = escaped(track.label), decoded[track.track_id]
        if isinstance(where, str):
            found[where].append(SplitTrack(rows, label))
            continue
        for split in SPLITS:
            if clips := tuple(number for number, of_clip in enumerate(where) if of_clip == split):
                found[split].append(SplitTrack(rows, label, clips))
    return found


def _write_parts(
    folder: Folder, parts: Mapping[str, Sequence[SplitTrack]], shape: tuple[int, int]
) -> list[PartFile]:
    """Write several files at a time: Arrow encodes and compresses without holding the GIL."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(lambda path: write_part(folder, path, parts[path], shape), parts))


def _track_rows(tracks: Sequence[Track], decision: Decision) -> list[dict[str, Any]]:
    rows = []
    for track in tracks:
        verdict = decision.verdicts[track.track_id]
        group = decision.groups.get(track.track_id) if verdict.used else None
        where = decision.splits.get(track.track_id)
        rows.append(
            {
                "track_id": track.track_id,
                "path": printable(track.path),
                "start_s": track.start_s,
                "end_s": track.end_s,
                "label": escaped(track.label),
                "group": None if group is None else escaped(group),
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
    found: dict[str, list[Verdict]] = defaultdict(list)
    for track in tracks:
        found[escaped(track.label)].append(decision.verdicts[track.track_id])
    return {label: _counts(verdicts) for label, verdicts in sorted(found.items())}


def _reasons(tracks: Sequence[Track], decision: Decision) -> dict[str, Reason]:
    paths: dict[str, list[str]] = defaultdict(list)
    for track in tracks:
        for code in decision.verdicts[track.track_id].reason.split():
            paths[code].append(shown(track))
    return {
        code: Reason(len(found), tuple(found[:_MAX_EXAMPLES]))
        for code, found in sorted(paths.items())
    }
