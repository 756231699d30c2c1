"""Decide on all tracks together: copies, groups, splits, the leakage audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.duplicates import exact_pairs, near_pairs
from pipelines.errors import BuildError
from pipelines.plain_text import printable
from pipelines.settings import Split, SplitSpec, Tolerance
from pipelines.sources.files import printable_root
from pipelines.sources.tracks import Catalog, Track, shown
from pipelines.splits.assign import (
    assign_clip_splits,
    assign_splits,
    given_splits,
    outside_split,
    require_splits_left,
    require_values,
)
from pipelines.splits.groups import Pair, assign_groups
from pipelines.splits.leakage import Leakage, audit, judge_copies, leaking
from pipelines.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

# Skipped files that are not bad: the data set loses nothing with them.
_HARMLESS = frozenset({"E_DUP", "E_DUP_ROW", "E_LEAK", "E_SPLIT"})


@dataclass(frozen=True)
class Copies:
    """Pairs of tracks that are the same recording.

    Attributes:
        exact: Pairs with equal samples.
        near: Pairs with different samples of one recording.
        searched: Tracks among which ``near`` are all pairs.
    """

    exact: tuple[Pair, ...]
    near: tuple[Pair, ...]
    searched: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decision:
    """The decision on every listed track.

    Attributes:
        verdicts: track_id -> verdict, for each listed track.
        decoded: track_id -> verdict before tracks were compared, for reuse by later builds.
        used: Tracks that have rows in the feature set, in the catalog's order.
        groups: track_id -> group, for the used tracks.
        group_source: Description of where the groups come from.
        splits: track_id -> split of the track, or of each of its clips.
        copies: Pairs of copies.
        leakage: Findings of the audit.
        spec: Split settings.
    """

    verdicts: Mapping[str, Verdict]
    decoded: Mapping[str, Verdict]
    used: tuple[Track, ...]
    groups: Mapping[str, str]
    group_source: str
    splits: Mapping[str, Split] | Mapping[str, tuple[Split, ...]]
    copies: Copies
    leakage: Leakage
    spec: SplitSpec


def check_splits(catalog: Catalog, spec: SplitSpec) -> None:
    """Try the split on all listed tracks before decoding any audio.

    Raises:
        SplitError: The split fails even if every file is good.
    """
    spec = catalog.as_given(spec)
    listed = [track for track in catalog.tracks if track.track_id not in catalog.rejected]
    outside = outside_split(listed, spec)
    require_values(listed, spec)
    tracks = [track for track in listed if track.track_id not in outside]
    if spec.unit == "group" and not spec.group.startswith("tag:"):
        groups = assign_groups(tracks, spec).names
        _leaks(tracks, groups, assign_splits(tracks, groups, spec), spec, Copies((), ()))


def decide(
    catalog: Catalog,
    decoded: Mapping[str, Verdict],
    spec: SplitSpec,
    tolerance: Tolerance,
    copies: Copies | None = None,
    search: Callable[[Mapping[str, NDArray[np.uint32]]], Iterable[Pair]] = near_pairs,
) -> Decision:
    """Decide on every listed track.

    Args:
        catalog: Listed tracks.
        decoded: track_id -> verdict, for each track that the catalog has not rejected.
        spec: Split settings.
        tolerance: Amount of data that may be lost.
        copies: Pairs found for another feature set of the same tracks; None to search for them.
        search: Finds near copies from the acoustic fingerprint of each track.

    Raises:
        BuildError: Too many files are bad, or a class lost all of its files.
        SplitError: A class has too few groups left for a train, validation and test split.
    """
    verdicts = with_listing(catalog, decoded)
    _require_enough(catalog, verdicts, tolerance.max_bad_share)
    _reject(verdicts, outside_split(_used(catalog, verdicts), spec))
    used = _used(catalog, verdicts)
    digests = {track.track_id: verdicts[track.track_id].pcm_digest for track in used}
    exact = copies.exact if copies else tuple(exact_pairs(digests))
    _reject(verdicts, judge_copies(used, exact, given_splits(used, spec)))
    used = _used(catalog, verdicts)
    if copies is None:
        signatures = {track.track_id: verdicts[track.track_id].signature for track in used}
        copies = Copies(exact, tuple(search(signatures)), frozenset(signatures))
    if not tolerance.drop_lost_classes:
        _require_classes(catalog.tracks, verdicts)
    for pair in copies.near:
        for track in pair:
            if verdicts[track].used:
                flags = {*verdicts[track].flags, "W_NEAR_DUP"}
                verdicts[track] = replace(verdicts[track], flags=tuple(sorted(flags)))

    tags = {track.track_id: verdicts[track.track_id].tags for track in used}
    groups = assign_groups(used, spec, [*copies.exact, *copies.near], tags)
    splits: dict[str, Split] | dict[str, tuple[Split, ...]]
    leaks: dict[str, str] = {}
    num_val = 0
    if spec.unit == "clip":
        num_clips = {track.track_id: verdicts[track.track_id].num_clips for track in used}
        splits = assign_clip_splits(used, num_clips, spec)
    else:
        assigned = assign_splits(used, groups.names, spec)
        leaks = _leaks(used, groups.names, assigned, spec, copies)
        num_val = sum(assigned[name] == "val" for name in leaks)
        splits = {name: split for name, split in assigned.items() if name not in leaks}
    _reject(verdicts, {name: ("E_LEAK", detail) for name, detail in leaks.items()})
    used = _used(catalog, verdicts)
    leakage = audit(used, groups.names, splits, copies.exact, copies.near)
    return Decision(
        verdicts=verdicts,
        decoded=verdicts | dict(decoded),
        used=tuple(used),
        groups={track.track_id: groups.names[track.track_id] for track in used},
        group_source=groups.source,
        splits=splits,
        copies=copies,
        leakage=replace(leakage, dropped=len(leaks), dropped_val=num_val),
        spec=spec,
    )


def reasons_table(tracks: Sequence[Track], verdicts: Mapping[str, Verdict]) -> str:
    """Return a line for each reason of rejection: code, number of files, an example."""
    example: dict[str, str] = {}
    count: Counter[str] = Counter()
    for track in tracks:
        verdict = verdicts[track.track_id]
        if not verdict.used:
            count[verdict.code] += 1
            example.setdefault(verdict.code, f"{shown(track)}: {verdict.detail}")
    return "\n".join(
        f"  {code:<17}{number:>7}  {example[code]}" for code, number in count.most_common()
    )


def with_listing(catalog: Catalog, decoded: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """Return the verdict so far on every listed track, including remarks from the listing."""
    verdicts = {}
    for track in catalog.tracks:
        name = track.track_id
        if name in catalog.rejected:
            code, detail = catalog.rejected[name]
            verdicts[name] = Verdict(name, code=code, detail=printable(detail))
            continue
        verdict = decoded[name]
        if verdict.used and (remarks := catalog.remarks.get(name)):
            verdict = replace(verdict, flags=tuple(sorted({*verdict.flags, *remarks})))
        verdicts[name] = verdict
    return verdicts


def _used(catalog: Catalog, verdicts: Mapping[str, Verdict]) -> list[Track]:
    return [track for track in catalog.tracks if verdicts[track.track_id].used]


def _reject(verdicts: dict[str, Verdict], found: Mapping[str, tuple[str, str]]) -> None:
    for name, (code, detail) in found.items():
        verdicts[name] = replace(verdicts[name], code=code, detail=printable(detail))


def _leaks(
    tracks: Sequence[Track],
    groups: Mapping[str, str],
    splits: Mapping[str, Split],
    spec: SplitSpec,
    copies: Copies,
) -> dict[str, str]:
    """Find the tracks to drop so that nothing leaks; none unless the settings ask for it."""
    if spec.leaks != "drop":
        return {}
    found = leaking(tracks, groups, splits, copies.exact, copies.near)
    require_splits_left(tracks, splits, found)
    return found


def _require_enough(
    catalog: Catalog, verdicts: Mapping[str, Verdict], max_bad_share: float
) -> None:
    tracks = catalog.tracks
    bad = sum(not verdict.used and verdict.code not in _HARMLESS for verdict in verdicts.values())
    if bad > max_bad_share * len(tracks):
        remedy = "Repair or remove these files, or allow more: max_bad_share (--max-bad-share)."
        if {verdict.code for verdict in verdicts.values() if not verdict.used} == {"E_MISSING"}:
            remedy = (
                f"Paths are looked up below {printable_root(catalog.root)}; if the audio lies "
                f"elsewhere, name its folder (--audio-root). {remedy}"
            )
        raise BuildError(
            f"{bad} of {len(tracks)} files cannot be used, more than the {max_bad_share:.0%} "
            f"allowed:\n{reasons_table(tracks, verdicts)}\n"
            f"{remedy}"
        )


def _require_classes(tracks: Sequence[Track], verdicts: Mapping[str, Verdict]) -> None:
    kept = {track.label for track in tracks if verdicts[track.track_id].used}
    if lost := {track.label for track in tracks} - kept - {""}:
        names = ", ".join(repr(printable(label)) for label in sorted(lost))
        raise BuildError(
            f"no file of {names} can be used:\n{reasons_table(tracks, verdicts)}\n"
            "Repair the files, or remove the class from the data "
            "(pipelines.build: --drop-lost-classes)."
        )
