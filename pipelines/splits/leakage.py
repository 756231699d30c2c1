"""What is on two sides of a split, and which of several copies is used."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.sources.tracks import printable
from pipelines.splits.groups import joined_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pipelines.settings import Split
    from pipelines.sources.tracks import Track
    from pipelines.splits.assign import TrackInfo
    from pipelines.splits.groups import Pair

MAX_EXAMPLES = 20
# Of several copies the one on the side that matters most is kept: to train on what is tested
# flatters the score, and a test without it would be another test.
_SIDE_RANK: Mapping[str | None, int] = {"test": 0, "val": 1, "train": 2, None: 3}


@dataclass(frozen=True)
class Leakage:
    """What is on two sides of a split.

    Attributes:
        groups_shared: groups with tracks on more than one side.
        near_duplicates_shared: pairs of near copies of one recording on different sides.
        passed: nothing is on two sides. Label conflicts within a side do not count.
        exact_duplicates_shared: pairs of tracks with equal samples on different sides.
        label_conflicts: pairs of copies, on any sides, that are listed with different classes.
        clip_split: clips were put on sides one by one, so that tracks are on several.
        examples: (kind, detail) of what was found, 20 at most; kinds are group, exact, near and
            label. UTF-8 can hold them.
        dropped: tracks that are not used, since they would have been on two sides: see `leaking`.
        dropped_val: how many of these were in validation; the others were in training.
    """

    groups_shared: int
    near_duplicates_shared: int
    passed: bool
    exact_duplicates_shared: int = 0
    label_conflicts: int = 0
    clip_split: bool = False
    examples: tuple[tuple[str, str], ...] = ()
    dropped: int = 0
    dropped_val: int = 0

    def __post_init__(self) -> None:
        # JSON has lists only; what comes back from it is equal to what was written
        pairs = tuple((kind, detail) for kind, detail in self.examples)
        object.__setattr__(self, "examples", pairs)


@dataclass(frozen=True)
class Leak:
    """Why a track cannot be used without a leak.

    Attributes:
        side: where the split puts it.
        detail: what is on a side that matters more, in words.
    """

    side: Split
    detail: str


def audit(
    tracks: Sequence[TrackInfo],
    sides: Mapping[str, Split | tuple[Split, ...]],
    exact: Iterable[Pair] = (),
    near: Iterable[Pair] = (),
) -> Leakage:
    """Looks for what is on two sides.

    Args:
        tracks: the usable tracks with their groups.
        sides: the side of each track, or the sides of its clips when these were put on sides
            one by one.
        exact: pairs of tracks with equal samples.
        near: pairs of tracks that are the same recording all the same; what is said of a track
            that is not used counts for the used ones with equal samples.
    """
    where = {name: _where(side) for name, side in sides.items()}
    known = {track.track_id: track for track in tracks if track.track_id in where}
    clip_split = any(not isinstance(side, str) for side in sides.values())
    groups = _shared_groups(known, where)
    exact = list(exact)
    exact_found = [(a, b) for a, b in exact if a in known and b in known]
    near_found = _through_copies(near, exact, known)
    exact_shared = [pair for pair in exact_found if len(where[pair[0]] | where[pair[1]]) > 1]
    near_shared = [pair for pair in near_found if len(where[pair[0]] | where[pair[1]]) > 1]
    conflicts = [(a, b) for a, b in exact_found + near_found if known[a].label != known[b].label]
    shown = [
        [("group", f"{group}: {', '.join(sorted(on))}") for group, on in sorted(groups.items())],
        [("exact", _pair(known, where, pair)) for pair in sorted(exact_shared)],
        [("near", _pair(known, where, pair)) for pair in sorted(near_shared)],
        [("label", _conflict(known, pair)) for pair in sorted(conflicts)],
    ]
    return Leakage(
        groups_shared=len(groups),
        near_duplicates_shared=len(near_shared),
        passed=not (groups or exact_shared or near_shared or clip_split),
        exact_duplicates_shared=len(exact_shared),
        label_conflicts=len(conflicts),
        clip_split=clip_split,
        examples=tuple(itertools.islice(_in_turn(shown), MAX_EXAMPLES)),
    )


def leaking(
    tracks: Sequence[TrackInfo],
    sides: Mapping[str, Split],
    exact: Iterable[Pair] = (),
    near: Iterable[Pair] = (),
) -> dict[str, Leak]:
    """The tracks without which nothing is on two sides.

    Of the tracks of a group, and of the tracks that hang together as copies, those on the side
    that matters most are used: test before val before train. A track goes when its group or its
    copies reach a side that matters more than its own, also when what ties it to that side goes
    too: a copy of a copy holds the same recording. So the audit of what is left passes, no test
    track goes, and no track goes whose group and copies are all on its side.

    Args:
        tracks: the usable tracks with their groups.
        sides: the side of each track.
        exact: pairs of tracks with equal samples.
        near: pairs of tracks that are the same recording all the same; tracks that are not used
            tie others together in both kinds of pairs.

    Returns:
        track_id -> why, of the tracks that are to be left out.
    """
    known = {track.track_id: track for track in tracks}
    groups: dict[str, list[TrackInfo]] = defaultdict(list)
    for track in tracks:
        groups[printable(track.group)].append(track)  # as the audit names them
    pairs = [*exact, *near]
    copies: dict[str, list[TrackInfo]] = defaultdict(list)
    for name, end in joined_names(itertools.chain(*pairs), pairs).items():
        if name in known:
            copies[end].append(known[name])
    found: dict[str, Leak] = {}
    for members in groups.values():
        found |= _behind(members, sides, "of the same group as")
    for members in copies.values():  # last: to be the same recording says more
        found |= _behind(members, sides, "the same recording as")
    return found


def judge_copies(
    tracks: Sequence[Track],
    exact: Iterable[Pair],
    given: Mapping[str, Split] | None = None,
) -> dict[str, tuple[str, str]]:
    """Verdicts on tracks whose decoded samples are equal.

    With one class: the first by path is used and the others are E_DUP. With several: all are
    E_LABEL_CONFLICT. Where the sides are given, the copy in test is used, else that in val, so
    that what is trained on never changes what is tested on.

    Args:
        tracks: the tracks that decoding left usable.
        exact: pairs of equal tracks; pairs with others are passed over.
        given: track_id -> side, when a column gives the split.

    Returns:
        track_id -> (code, detail) of the tracks that are not used.
    """
    by_name = {track.track_id: track for track in tracks}
    pairs = [(a, b) for a, b in exact if a in by_name and b in by_name]
    sets: dict[str, list[Track]] = defaultdict(list)
    for name, first in joined_names(itertools.chain(*pairs), pairs).items():
        sets[first].append(by_name[name])
    verdicts: dict[str, tuple[str, str]] = {}
    for copies in sets.values():
        copies.sort(key=lambda track: _rank(track, given or {}))
        verdicts.update(_conflicting(copies) or _repeated(copies))
    return verdicts


def _behind(
    together: Sequence[TrackInfo], sides: Mapping[str, Split], tie: str
) -> dict[str, Leak]:
    """Those of tracks that belong together which are not on the side that matters most."""
    first = min(together, key=lambda t: (_SIDE_RANK[sides[t.track_id]], t.path, t.track_id))
    best = sides[first.track_id]
    return {
        track.track_id: Leak(side, f"in {side}, and {tie} {_shown(first)}, which is in {best}")
        for track in together
        if (side := sides[track.track_id]) != best
    }


def _rank(track: Track, given: Mapping[str, Split]) -> tuple[int, str, float, str]:
    side = _SIDE_RANK[given.get(track.track_id)]
    return side, track.path, track.start_s, track.track_id


def _conflicting(copies: Sequence[Track]) -> dict[str, tuple[str, str]]:
    if len({track.label for track in copies}) == 1:
        return {}
    verdicts = {}
    for track in copies:
        other = next(copy for copy in copies if copy.label != track.label)
        detail = f"same samples as {_named(other)}, which is listed as {other.label!r}"
        verdicts[track.track_id] = ("E_LABEL_CONFLICT", detail)
    return verdicts


def _repeated(copies: Sequence[Track]) -> dict[str, tuple[str, str]]:
    detail = f"same samples as {_named(copies[0])}"
    return {track.track_id: ("E_DUP", detail) for track in copies[1:]}


def _named(track: Track) -> str:
    path = printable(track.path)
    return path if track.whole else f"{path} from {track.start_s:g} s"


def _where(side: Split | tuple[Split, ...]) -> frozenset[str]:
    return frozenset([side] if isinstance(side, str) else side)


def _shared_groups(
    known: Mapping[str, TrackInfo], where: Mapping[str, frozenset[str]]
) -> dict[str, set[str]]:
    """Groups on more than one side: name to sides."""
    seen: dict[str, set[str]] = defaultdict(set)
    for track in known.values():
        seen[printable(track.group)] |= where[track.track_id]
    return {group: on for group, on in seen.items() if len(on) > 1}


def _through_copies(
    near: Iterable[Pair], exact: Sequence[Pair], known: Mapping[str, TrackInfo]
) -> list[Pair]:
    """Near pairs of known tracks; for an unknown one stand the known ones with equal samples."""
    sets: dict[str, list[str]] = defaultdict(list)
    first = joined_names(itertools.chain(*exact), exact)
    for name, end in first.items():
        if name in known:
            sets[end].append(name)

    def stand_ins(name: str) -> list[str]:
        return [name] if name in known else sets.get(first.get(name, name), [])

    found = {(min(x, y), max(x, y)) for a, b in near for x in stand_ins(a) for y in stand_ins(b)}
    return sorted((x, y) for x, y in found if x != y)


def _pair(known: Mapping[str, TrackInfo], where: Mapping[str, frozenset[str]], pair: Pair) -> str:
    return " = ".join(f"{_shown(known[name])} ({', '.join(sorted(where[name]))})" for name in pair)


def _conflict(known: Mapping[str, TrackInfo], pair: Pair) -> str:
    return " = ".join(f"{_shown(known[n])} ({printable(known[n].label)})" for n in pair)


def _shown(track: TrackInfo) -> str:
    return printable(track.path or track.track_id)


def _in_turn(lists: Iterable[Sequence[tuple[str, str]]]) -> Iterator[tuple[str, str]]:
    """One of each kind in turn, so that no kind hides the others."""
    for row in itertools.zip_longest(*lists):
        yield from (item for item in row if item is not None)
