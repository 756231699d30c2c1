"""Leaks between splits, and the choice of the copy that is used."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.plain_text import escaped
from pipelines.settings import Split
from pipelines.sources.tracks import Track, shown
from pipelines.splits.groups import Pair, joined_names

MAX_EXAMPLES = 20
# Of several copies, the one in the most important split is kept: training on test recordings
# would flatter the score, and a test without them would be another test.
_RANK: Mapping[str | None, int] = {"test": 0, "val": 1, "train": 2, None: 3}


@dataclass(frozen=True)
class Leakage:
    """Findings of the leakage audit.

    Attributes:
        groups_shared: Groups with tracks in more than one split.
        near_duplicates_shared: Pairs of near copies of one recording in different splits.
        passed: True if nothing appears in more than one split. Label conflicts within a split do
            not count.
        exact_duplicates_shared: Pairs of tracks with equal samples in different splits.
        label_conflicts: Pairs of copies, in any splits, that are listed with different classes.
        clip_split: True if clips were split one by one, so that tracks are in several splits.
        examples: (kind, detail) of findings, at most 20; kinds are group, exact, near and
            label. The text is valid UTF-8.
        dropped: Tracks that were dropped because they would leak; see ``leaking``.
        dropped_val: Number of these in validation; the others were in train.
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


def audit(
    tracks: Sequence[Track],
    groups: Mapping[str, str],
    splits: Mapping[str, Split | tuple[Split, ...]],
    exact: Iterable[Pair] = (),
    near: Iterable[Pair] = (),
) -> Leakage:
    """Find groups and recordings that appear in more than one split.

    Args:
        tracks: Usable tracks.
        groups: track_id -> group.
        splits: Split of each track, or of each of its clips if clips are split one by one.
        exact: Pairs of tracks with equal samples.
        near: Pairs of other copies of one recording; a pair with an unused track counts for the
            used tracks with the same samples.
    """
    where = {
        name: frozenset([found] if isinstance(found, str) else found)
        for name, found in splits.items()
    }
    known = {track.track_id: track for track in tracks if track.track_id in where}
    clip_split = any(not isinstance(found, str) for found in splits.values())
    in_splits: dict[str, set[str]] = defaultdict(set)
    for name in known:
        in_splits[escaped(groups[name])] |= where[name]
    shared_groups = {group: found for group, found in in_splits.items() if len(found) > 1}
    exact = list(exact)
    exact_found = [(a, b) for a, b in exact if a in known and b in known]
    near_found = _through_copies(near, exact, known)
    exact_shared = [pair for pair in exact_found if len(where[pair[0]] | where[pair[1]]) > 1]
    near_shared = [pair for pair in near_found if len(where[pair[0]] | where[pair[1]]) > 1]
    conflicts = [(a, b) for a, b in exact_found + near_found if known[a].label != known[b].label]
    examples = [
        [("group", f"{g}: {', '.join(sorted(on))}") for g, on in sorted(shared_groups.items())],
        [("exact", _pair(known, where, pair)) for pair in sorted(exact_shared)],
        [("near", _pair(known, where, pair)) for pair in sorted(near_shared)],
        [("label", _conflict(known, pair)) for pair in sorted(conflicts)],
    ]
    return Leakage(
        groups_shared=len(shared_groups),
        near_duplicates_shared=len(near_shared),
        passed=not (shared_groups or exact_shared or near_shared or clip_split),
        exact_duplicates_shared=len(exact_shared),
        label_conflicts=len(conflicts),
        clip_split=clip_split,
        examples=tuple(itertools.islice(_in_turn(examples), MAX_EXAMPLES)),
    )


def leaking(
    tracks: Sequence[Track],
    groups: Mapping[str, str],
    splits: Mapping[str, Split],
    exact: Iterable[Pair] = (),
    near: Iterable[Pair] = (),
) -> dict[str, str]:
    """Find the tracks to drop so that nothing appears in more than one split.

    Of the tracks of a group, and of connected copies, those in the most important split are
    used: test before val before train. A track is dropped if its group or its copies reach a
    more important split than its own, even through tracks that are dropped too, because a copy
    of a copy holds the same recording. So the audit of the rest passes, no test track is
    dropped, and no track is dropped whose group and copies are all in its split.

    Args:
        tracks: Usable tracks.
        groups: track_id -> group.
        splits: track_id -> split.
        exact: Pairs of tracks with equal samples.
        near: Pairs of other copies of one recording; unused tracks connect others in both kinds
            of pairs.

    Returns:
        track_id -> reason in words, for the tracks to drop.
    """
    known = {track.track_id: track for track in tracks}
    members: dict[str, list[Track]] = defaultdict(list)
    for track in tracks:
        members[escaped(groups[track.track_id])].append(track)  # as the audit names them
    pairs = [*exact, *near]
    copies: dict[str, list[Track]] = defaultdict(list)
    for name, end in joined_names(itertools.chain(*pairs), pairs).items():
        if name in known:
            copies[end].append(known[name])
    found: dict[str, str] = {}
    for together in members.values():
        found |= _behind(together, splits, "of the same group as")
    for together in copies.values():  # last, because being the same recording says more
        found |= _behind(together, splits, "the same recording as")
    return found


def judge_copies(
    tracks: Sequence[Track], exact: Iterable[Pair], given: Mapping[str, Split] | None = None
) -> dict[str, tuple[str, str]]:
    """Return verdicts on tracks whose decoded samples are equal.

    If they have one class, the first by path is used and the others are E_DUP. If they have
    several, all are E_LABEL_CONFLICT. If the split is given, the copy in test is used, else the
    one in val, so that the training data never changes the test.

    Args:
        tracks: Tracks that decoding left usable.
        exact: Pairs of equal tracks; pairs with other tracks are ignored.
        given: track_id -> split, if a column gives the split.

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
        for track in copies:
            other = next((copy for copy in copies if copy.label != track.label), None)
            if other:
                detail = f"same samples as {shown(other)}, which is listed as {other.label!r}"
                verdicts[track.track_id] = ("E_LABEL_CONFLICT", detail)
            elif track is not copies[0]:
                verdicts[track.track_id] = ("E_DUP", f"same samples as {shown(copies[0])}")
    return verdicts


def _behind(together: Sequence[Track], splits: Mapping[str, Split], tie: str) -> dict[str, str]:
    """Find the connected tracks that are outside their most important split."""
    first = min(together, key=lambda track: _rank(track, splits))
    best = splits[first.track_id]
    return {
        track.track_id: f"in {split}, and {tie} {shown(first)}, which is in {best}"
        for track in together
        if (split := splits[track.track_id]) != best
    }


def _rank(track: Track, splits: Mapping[str, Split]) -> tuple[int, str, float, str]:
    rank = _RANK[splits.get(track.track_id)]
    return rank, track.path, track.start_s, track.track_id


def _through_copies(
    near: Iterable[Pair], exact: Sequence[Pair], known: Mapping[str, Track]
) -> list[Pair]:
    """List near pairs of known tracks; known copies replace an unknown track."""
    sets: dict[str, list[str]] = defaultdict(list)
    first = joined_names(itertools.chain(*exact), exact)
    for name, end in first.items():
        if name in known:
            sets[end].append(name)

    def stand_ins(name: str) -> list[str]:
        return [name] if name in known else sets.get(first.get(name, name), [])

    found = {(min(x, y), max(x, y)) for a, b in near for x in stand_ins(a) for y in stand_ins(b)}
    return sorted((x, y) for x, y in found if x != y)


def _pair(known: Mapping[str, Track], where: Mapping[str, frozenset[str]], pair: Pair) -> str:
    return " = ".join(f"{shown(known[name])} ({', '.join(sorted(where[name]))})" for name in pair)


def _conflict(known: Mapping[str, Track], pair: Pair) -> str:
    return " = ".join(f"{shown(known[n])} ({escaped(known[n].label)})" for n in pair)


def _in_turn(lists: Iterable[Sequence[tuple[str, str]]]) -> Iterator[tuple[str, str]]:
    """Take one of each kind in turn, so that no kind hides the others."""
    for row in itertools.zip_longest(*lists):
        yield from (item for item in row if item is not None)
