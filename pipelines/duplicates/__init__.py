"""Copies of one recording: pairs that match, without comparing every track with every other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.duplicates.acoustic_fingerprint import (
    HOP,
    RATE_HZ,
    acoustic_fingerprint,
    frames_of,
    unpack,
)
from pipelines.duplicates.agreement import same_recording
from pipelines.duplicates.word_store import WordStore

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Compared", "WordStore", "acoustic_fingerprint", "exact_pairs", "near_pairs"]

# Finds copies that start up to 2 s earlier or later; coders add a little silence of their own.
MAX_OFFSET = round(2.4 * RATE_HZ / HOP)  # frames

_NUM_TABLES = 4
_MIN_KEY_BITS = 14
_MAX_KEY_BITS = 28
_MIN_CLEAR = 10  # bits; frames with fewer are silent or stationary and look alike
_MAX_ENTRIES = 2_000_000  # in a table; more frames are sampled
_MAX_LINKS = 24  # from an entry to the next entries with its key
_SHORT_FRAMES = 200

# Surroundings of two equal frames, in frames, and their least cosine, compared before whole
# recordings are; a third of them first, which 199 of 200 chance matches do not pass.
_AROUND = np.arange(-24, 25, 2), 0.45
_FIRST_AROUND = np.arange(-24, 25, 6), 0.2
_CHUNK = 40_000
# So that what is worked out for each frame and each entry stays small.
_TRACKS_AT_ONCE = 256
_ENTRIES_AT_ONCE = 200_000

# A table entry is one number for sorting: key, time, track, from the highest bit down.
_KEY_AT, _TIME_AT = np.uint64(32), np.uint64(21)
_MAX_TRACKS = 2**21
_NO_ENTRIES = np.zeros(0, np.uint64)


@dataclass(frozen=True)
class Compared:
    """Result of an earlier search.

    Attributes:
        tracks: Tracks that it has compared with each other.
        pairs: Pairs of them that are one recording.
    """

    tracks: frozenset[str] = frozenset()
    pairs: tuple[tuple[str, str], ...] = ()


def near_pairs(
    signatures: Mapping[str, NDArray[np.uint32]],
    before: Compared = Compared(),
    scratch: Path | None = None,
) -> list[tuple[str, str]]:
    """Find pairs of tracks that are one recording: coded with loss, louder, shifted, resampled.

    Two tracks are candidates if frames at nearly the same time agree on a subset of their bits.
    Their whole recordings are then compared (``same_recording``). If more than 25 tracks are the
    same recording, some pairs of them may be missing, but all are connected.

    Args:
        signatures: track -> its acoustic fingerprint.
        before: What need not be searched again, because it is known.
        scratch: Folder for a temporary file; None to hold all frames in memory.

    Returns:
        Pairs (a, b) with a < b, in order; the same for every order of the tracks.

    Raises:
        ValueError: There are more tracks than an index can hold.
    """
    tracks = sorted(signatures)
    if len(tracks) > _MAX_TRACKS:
        raise ValueError(
            f"{len(tracks)} tracks, more than the {_MAX_TRACKS} that can be searched for copies; "
            "divide the data set"
        )
    is_new = np.array([track not in before.tracks for track in tracks], np.bool_)
    candidates = _Frames((signatures[track] for track in tracks), scratch).candidates(is_new)
    known = ((min(pair), max(pair)) for pair in before.pairs)
    found = [(a, b) for a, b in known if a in signatures and b in signatures]
    cuts = np.flatnonzero(np.diff(candidates[:, :2], axis=0).any(axis=1)) + 1
    for group in np.split(candidates, cuts) if len(candidates) else []:
        a, b = (int(number) for number in group[0, :2])
        offsets = sorted({int(o) + d for o in group[:, 2] for d in (-1, 0, 1)})
        pair = tracks[a], tracks[b]
        first, other = (unpack(signatures[track]) for track in pair)
        if same_recording(first, other, offsets):
            found.append(pair)
    return sorted(found)


def exact_pairs(digests: Mapping[str, str]) -> list[tuple[str, str]]:
    """Find tracks whose decoded samples are equal.

    Args:
        digests: track -> digest of its samples.

    Returns:
        Pairs (first, other) for each set of equal tracks, in order.
    """
    same: dict[str, list[str]] = defaultdict(list)
    for track, digest in sorted(digests.items()):
        same[digest].append(track)
    return sorted((tracks[0], other) for tracks in same.values() for other in tracks[1:])


class _Frames:
    """The frames of all tracks: for one after the other its signs, then its clear bits."""

    def __init__(self, signatures: Iterable[NDArray[np.uint32]], scratch: Path | None) -> None:
        frames = [frames_of(words) for words in signatures]
        self.lengths = np.array([part.shape[1] for part in frames], np.int64)
        self.starts = 2 * (np.cumsum(self.lengths) - self.lengths)
        store = WordStore(scratch, 2 * int(self.lengths.sum()))
        for part in frames:
            store.add(part)
        self.words = store.words

    def candidates(self, is_new: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return int64[C, 3]: tracks a < b and the offset of b's frames, sorted and unique.

        Args:
            is_new: bool[tracks]; one of each pair is new.
        """
        every = np.arange(len(self.lengths))
        short = every[self.lengths <= _SHORT_FRAMES]
        groups = [every, short] if 0 < len(short) < len(every) else [every]
        codes = [np.zeros(0, np.int64)]
        for tracks in groups:
            for table in range(_NUM_TABLES):
                entries = self._entries(tracks, table) if is_new[tracks].any() else _NO_ENTRIES
                for links in _links(entries):
                    wanted = is_new[links[0]] | is_new[links[1]]
                    codes.append(self._agreeing(links[:, wanted]))
        code = np.unique(np.concatenate(codes))
        pair, offset = np.divmod(code, 2 * MAX_OFFSET + 1)
        a, b = np.divmod(pair, max(1, len(self.lengths)))
        return np.stack([a, b, offset - MAX_OFFSET], axis=1)

    def _entries(self, tracks: NDArray[np.int64], table: int) -> NDArray[np.uint64]:
        """Return sorted entries (key, time, track in one number) of the distinctive frames."""
        num_frames = int(self.lengths[tracks].sum())
        mask = _mask(table, num_frames)
        sample = max(1, -(-num_frames // _MAX_ENTRIES))
        parts = [_NO_ENTRIES]
        for some in np.array_split(tracks, 1 + len(tracks) // _TRACKS_AT_ONCE):
            track, time, at = self._frames_of(some)
            key = self.words[at] & mask
            keep = np.bitwise_count(self.words[at + self.lengths[track]]) >= _MIN_CLEAR
            keep[1:] &= (key[1:] != key[:-1]) | (time[1:] == 0)
            if sample > 1:
                # Chosen by content, so that copies keep the same frames; 2^32 / golden ratio.
                keep &= (key * np.uint32(2654435769) >> np.uint32(12)) % sample == 0
            keys, times, numbers = (each[keep].astype(np.uint64) for each in (key, time, track))
            parts.append(keys << _KEY_AT | times << _TIME_AT | numbers)
        entries = np.concatenate(parts)
        entries.sort()
        return entries

    def _frames_of(
        self, tracks: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return each frame of some tracks: its track, its number, the place of its signs."""
        lengths = self.lengths[tracks]
        before = np.cumsum(lengths) - lengths
        time = np.arange(lengths.sum()) - np.repeat(before, lengths)
        return np.repeat(tracks, lengths), time, time + np.repeat(self.starts[tracks], lengths)

    def _agreeing(self, links: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the codes of the links whose surroundings agree too."""
        a, b, time_a, time_b = links
        offset = time_b - time_a
        code = (a * len(self.lengths) + b) * (2 * MAX_OFFSET + 1) + offset + MAX_OFFSET
        code, first = np.unique(code, return_index=True)
        for around, least in (_FIRST_AROUND, _AROUND):
            starts = range(0, len(first), _CHUNK)
            parts = (links[:, first[i : i + _CHUNK]] for i in starts)
            good = [self._surroundings_match(part, around, least) for part in parts]
            if good:
                kept = np.concatenate(good)
                code, first = code[kept], first[kept]
        return code

    def _surroundings_match(
        self, links: NDArray[np.int64], around: NDArray[np.int64], least: float
    ) -> NDArray[np.bool_]:
        """Return a mask of the links int64[4, L] that have the same sound around both frames."""
        track_a, track_b, time_a, time_b = links[:, :, np.newaxis]
        at_a, inside_a = self._places(track_a, time_a + around)
        at_b, inside_b = self._places(track_b, time_b + around)
        inside, nothing = inside_a & inside_b, np.uint32(0)
        clear_a = np.where(inside, self.words[at_a + self.lengths[track_a]], nothing)
        clear_b = np.where(inside, self.words[at_b + self.lengths[track_b]], nothing)
        both = clear_a & clear_b
        differ = both & (self.words[at_a] ^ self.words[at_b])
        counts = np.bitwise_count(np.stack([clear_a, clear_b, both, differ]))
        num_a, num_b, num_both, num_differ = counts.sum(axis=2, dtype=np.float32)
        good: NDArray[np.bool_] = num_both - 2 * num_differ >= least * np.sqrt(num_a * num_b)
        return good

    def _places(
        self, track: NDArray[np.int64], time: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return places of signs, and which frames the track has; the others get its first."""
        inside = (time >= 0) & (time < self.lengths[track])
        return self.starts[track] + np.where(inside, time, 0), inside


def _mask(table: int, num_frames: int) -> np.uint32:
    """Select neighbouring bits, enough that chance matches are as rare as frames are many."""
    bits = min(max(int(num_frames).bit_length() + 1, _MIN_KEY_BITS), _MAX_KEY_BITS)
    low = (1 << bits) - 1
    turn = 32 * table // _NUM_TABLES
    return np.uint32((low << turn | low >> (32 - turn)) & 0xFFFFFFFF)


def _links(entries: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Yield int64[4, L]: tracks a < b and times of two entries with one key and close times."""
    for first in range(0, len(entries), _ENTRIES_AT_ONCE):
        # The last entries of a piece are compared with the first ones of the next.
        some = entries[first : first + _ENTRIES_AT_ONCE + _MAX_LINKS]
        key = (some >> _KEY_AT).astype(np.uint32)
        time = (some >> _TIME_AT).astype(np.int64) & (2**11 - 1)
        track = some.astype(np.int64) & (_MAX_TRACKS - 1)
        at = np.arange(min(_ENTRIES_AT_ONCE, len(some)))
        for step in range(1, _MAX_LINKS + 1):
            at = at[at < len(some) - step]
            at = at[(key[at] == key[at + step]) & (time[at + step] - time[at] <= MAX_OFFSET)]
            if not len(at):
                break
            other = at + step
            swap = track[at] > track[other]
            a, b = np.where(swap, other, at), np.where(swap, at, other)
            links = np.stack([track[a], track[b], time[a], time[b]])
            yield links[:, links[0] != links[1]]
