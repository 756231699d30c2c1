"""Verdicts on single files to decisions on the whole: copies, groups, sides, the audit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.duplicates import exact_pairs, near_pairs
from pipelines.errors import BuildError
from pipelines.sources.tracks import printable, shown
from pipelines.splits.assign import (
    TrackInfo,
    assign_clip_splits,
    assign_splits,
    given_sides,
    outside_split,
    require_sides_left,
)
from pipelines.splits.groups import assign_groups
from pipelines.splits.leakage import audit, judge_copies, leaking
from pipelines.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipelines.settings import Split, SplitSpec
    from pipelines.sources.tracks import Catalog, Track
    from pipelines.splits.groups import Pair
    from pipelines.splits.leakage import Leak, Leakage
    from pipelines.splits.tolerance import Tolerance

# Files that are left out and yet are not bad: nothing of the data set is lost with them.
_HARMLESS = frozenset({"E_DUP", "E_DUP_ROW", "E_LEAK", "E_SPLIT"})


@dataclass(frozen=True)
class Copies:
    """Pairs of tracks that are the same recording.

    Attributes:
        exact: with equal samples.
        near: that sound the same all the same.
    """

    exact: tuple[Pair, ...]
    near: tuple[Pair, ...]


@dataclass(frozen=True)
class Decision:
    """What becomes of every listed track.

    Attributes:
        verdicts: track_id -> its verdict, for each listed track.
        decoded: the same before tracks were compared with others; what a later build takes over.
        used: the tracks that have rows in the feature set, in the catalog's order.
        groups: track_id -> group, of the used tracks.
        group_source: what the groups came from, in words.
        sides: track_id -> the side of the track, or of each of its clips.
        copies: the pairs found.
        leakage: what is on two sides.
    """

    verdicts: Mapping[str, Verdict]
    decoded: Mapping[str, Verdict]
    used: tuple[Track, ...]
    groups: Mapping[str, str]
    group_source: str
    sides: Mapping[str, Split] | Mapping[str, tuple[Split, ...]]
    copies: Copies
    leakage: Leakage


def check_splits(catalog: Catalog, spec: SplitSpec) -> None:
    """Tries the split on all listed tracks, before any audio is decoded.

    Raises:
        SplitError: It cannot work with every file good.
    """
    listed = [track for track in catalog.tracks if track.track_id not in catalog.rejected]
    outside = outside_split(listed, spec)
    tracks = [track for track in listed if track.track_id not in outside]
    if spec.unit == "group" and not spec.group.startswith("tag:"):
        infos = _infos(tracks, assign_groups(tracks, spec).names)
        _leaks(infos, assign_splits(infos, spec), spec, Copies((), ()))


def decide(
    catalog: Catalog,
    decoded: Mapping[str, Verdict],
    spec: SplitSpec,
    tolerance: Tolerance,
    copies: Copies | None = None,
) -> Decision:
    """Decides on every listed track.

    Args:
        catalog: the listed tracks.
        decoded: a verdict for each track that the catalog has not rejected.
        spec: how tracks are put on sides.
        tolerance: how much may be lost.
        copies: pairs found for another feature set of the same tracks; None to look for them.

    Raises:
        BuildError: Too many files are bad, or a class lost all of its files.
        SplitError: The groups that are left cannot be put on three sides.
    """
    verdicts = with_listing(catalog, decoded)
    _require_enough(catalog.tracks, verdicts, tolerance.max_bad_share)
    _reject(verdicts, outside_split(_used(catalog, verdicts), spec))
    exact = copies.exact if copies else _exact_copies(_used(catalog, verdicts), verdicts)
    given = given_sides(_used(catalog, verdicts), spec)
    _reject(verdicts, judge_copies(_used(catalog, verdicts), exact, given))
    copies = copies or Copies(exact, _near_copies(_used(catalog, verdicts), verdicts))
    if not tolerance.drop_lost_classes:
        _require_classes(catalog.tracks, verdicts)
    for pair in copies.near:
        for track in pair:
            if verdicts[track].used:
                flags = {*verdicts[track].flags, "W_NEAR_DUP"}
                verdicts[track] = replace(verdicts[track], flags=tuple(sorted(flags)))

    used = _used(catalog, verdicts)
    tags = {track.track_id: verdicts[track.track_id].tags for track in used}
    groups = assign_groups(used, spec, [*copies.exact, *copies.near], tags)
    infos = _infos(used, groups.names)
    sides: dict[str, Split] | dict[str, tuple[Split, ...]]
    leaks: dict[str, Leak] = {}
    if spec.unit == "clip":
        num_clips = {track.track_id: verdicts[track.track_id].num_clips for track in used}
        sides = assign_clip_splits(infos, num_clips, spec)
    else:
        given_or_drawn = assign_splits(infos, spec)
        leaks = _leaks(infos, given_or_drawn, spec, copies)
        sides = {name: side for name, side in given_or_drawn.items() if name not in leaks}
    _reject(verdicts, {name: ("E_LEAK", leak.detail) for name, leak in leaks.items()})
    return Decision(
        verdicts=verdicts,
        decoded=verdicts | dict(decoded),
        used=tuple(_used(catalog, verdicts)),
        groups={name: group for name, group in groups.names.items() if name not in leaks},
        group_source=groups.source,
        sides=sides,
        copies=copies,
        leakage=_audit(infos, sides, copies, leaks),
    )


def reasons_table(tracks: Sequence[Track], verdicts: Mapping[str, Verdict]) -> str:
    """A line for each reason of rejection: code, number of files, an example."""
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
    """Every listed track with its verdict so far; remarks of the listing are added."""
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
    infos: Sequence[TrackInfo], sides: Mapping[str, Split], spec: SplitSpec, copies: Copies
) -> dict[str, Leak]:
    """Tracks that are left out so that nothing leaks; none unless the spec asks for it."""
    if spec.leaks != "drop":
        return {}
    found = leaking(infos, sides, copies.exact, copies.near)
    require_sides_left(infos, sides, found)
    return found


def _audit(
    infos: Sequence[TrackInfo],
    sides: Mapping[str, Split] | Mapping[str, tuple[Split, ...]],
    copies: Copies,
    leaks: Mapping[str, Leak],
) -> Leakage:
    """What is on two sides now, and how much was left out for it."""
    left = [track for track in infos if track.track_id not in leaks]
    found = audit(left, sides, copies.exact, copies.near)
    num_val = sum(leak.side == "val" for leak in leaks.values())
    return replace(found, dropped=len(leaks), dropped_val=num_val)


def _exact_copies(tracks: Sequence[Track], verdicts: Mapping[str, Verdict]) -> tuple[Pair, ...]:
    names = [track.track_id for track in tracks]
    return tuple(exact_pairs({name: verdicts[name].pcm_digest for name in names}))


def _near_copies(tracks: Sequence[Track], verdicts: Mapping[str, Verdict]) -> tuple[Pair, ...]:
    """Pairs of tracks whose exact copies have gone."""
    names = [track.track_id for track in tracks]
    return tuple(near_pairs({name: verdicts[name].signature for name in names}))


def _infos(tracks: Sequence[Track], groups: Mapping[str, str]) -> list[TrackInfo]:
    return [
        TrackInfo(track.track_id, track.label, groups[track.track_id], track.columns, shown(track))
        for track in tracks
    ]


def _require_enough(
    tracks: Sequence[Track], verdicts: Mapping[str, Verdict], max_bad_share: float
) -> None:
    bad = sum(not verdict.used and verdict.code not in _HARMLESS for verdict in verdicts.values())
    if bad > max_bad_share * len(tracks):
        raise BuildError(
            f"{bad} of {len(tracks)} files cannot be used, more than the {max_bad_share:.0%} "
            f"that are allowed:\n{reasons_table(tracks, verdicts)}\n"
            "Repair or remove these files, or allow more: max_bad_share (--max-bad-share)."
        )


def _require_classes(tracks: Sequence[Track], verdicts: Mapping[str, Verdict]) -> None:
    kept = {track.label for track in tracks if verdicts[track.track_id].used}
    lost = {track.label for track in tracks} - kept - {""}
    if lost:
        names = ", ".join(repr(printable(label)) for label in sorted(lost))
        raise BuildError(
            f"no file of {names} can be used:\n{reasons_table(tracks, verdicts)}\n"
            "Repair the files, or leave the class out: remove it from the data "
            "(pipelines.build: --drop-lost-classes)."
        )
