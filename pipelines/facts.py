"""A look of a moment at a data set: classes, lengths, sample rates, bandwidth."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pipelines.errors import AudioRejected, CatalogError
from pipelines.plain_text import first_few, printable
from pipelines.settings import SPLIT_RULES, SplitSpec
from pipelines.sources.files import files_at
from pipelines.sources.tracks import shown
from pipelines.splits.groups import assign_groups, count_groups

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.audio.sandbox import Decoder
    from pipelines.sources.files import Files
    from pipelines.sources.tracks import Catalog, GivenSplit, Track

MAX_OPENED = 200
"""Files whose headers are read, spread over the classes."""
MAX_HEARD = 30
"""Files of which a part is decoded."""
MAX_REMOTE = 8
"""Files of a remote storage, where each is fetched as a whole."""
HEARD_SECONDS = 3.0
FLOOR_DB = -80.0
"""Level below the strongest Fourier bin at which a recording is taken to hold nothing.

The noise of 16 bits is at -98 dB in all bins together; the band above an upsampled recording, or
one coded at a low rate, is below -90 dB. Music without such an edge reaches it near the top.
"""
_FFT_SIZE = 2048
# The part that is heard may be silent in a file that is not.
_NO_SOUND = frozenset({"E_SILENT", "E_DC"})


@dataclass(frozen=True)
class DataFacts:
    """Facts about a data set that do not need all of its files.

    Attributes:
        tracks: The listed tracks that have a class.
        seconds: Lengths of the tracks that were looked at and can be read, ascending.
        rates_hz: Sample rates of their files, ascending.
        bandwidths_hz: Frequencies up to which some of them hold sound, ascending.
        unreadable: Path and reason of each track that was looked at and cannot be read.
        given: The split that the data set brings.
    """

    tracks: tuple[Track, ...] = field(repr=False)
    seconds: tuple[float, ...]
    rates_hz: tuple[int, ...]
    bandwidths_hz: tuple[float, ...]
    unreadable: tuple[str, ...] = ()
    given: GivenSplit | None = None

    @property
    def num_looked_at(self) -> int:
        """Number of tracks that were looked at."""
        return len(self.seconds) + len(self.unreadable)

    def unreadable_in_words(self) -> str:
        """Name the first files that cannot be read, with the reasons; empty without any."""
        if not self.unreadable:
            return ""
        return (
            f"{len(self.unreadable)} of {self.num_looked_at} files looked at cannot be read: "
            f"{first_few(self.unreadable)}; a run skips such files and lists all in rejects.csv"
        )

    def require_readable(self) -> None:
        """Check that there is something to choose settings for.

        Raises:
            CatalogError: None of the tracks that were looked at can be read; shows one reason.
        """
        if self.unreadable and not self.seconds:
            raise CatalogError(
                f"none of the {self.num_looked_at} files looked at can be read, for example "
                f"{self.unreadable[0]}"
            )

    @cached_property
    def num_by_class(self) -> dict[str, int]:
        """Number of tracks of each class."""
        return dict(sorted(Counter(track.label for track in self.tracks).items()))

    def groups_by_class(self, group: str) -> dict[str, int]:
        """Count the groups of each class; its tracks, where the listing names no groups.

        Args:
            group: The setting ``group`` of a split.

        Raises:
            SplitError: The setting names a column that the listing does not have.
        """
        spec = SplitSpec(group=group)
        if group.startswith("tag:") or any(rule.check(spec) for rule in SPLIT_RULES):
            return self.num_by_class
        return count_groups(self.tracks, assign_groups(self.tracks, spec).names)

    def length_seconds(self, share: float) -> float:
        """Return the length that a share of the tracks do not exceed; 5 s if none is known."""
        return _quantile(self.seconds, share) or 5.0

    def rate_hz(self, share: float) -> int:
        """Return the rate that a share of the files do not exceed; 16 kHz if none is known."""
        return int(_quantile(self.rates_hz, share) or 16_000)

    @property
    def bandwidth_hz(self) -> float | None:
        """Frequency up to which half of the files hold sound; None if none is known."""
        return _quantile(self.bandwidths_hz, 0.5)


def _quantile(values: Sequence[float], share: float) -> float | None:
    return values[min(int(share * len(values)), len(values) - 1)] if values else None


def look(catalog: Catalog) -> DataFacts:
    """Look at a data set: all of its listing, the headers of some files, the sound of a few.

    Which files are looked at depends on their paths alone. Files are opened in a child process,
    as for building.

    Raises:
        UserError: A remote storage does not answer, or the child process does not start.
    """
    from pipelines.audio.sandbox import Decoder

    tracks = tuple(t for t in catalog.tracks if t.label and t.track_id not in catalog.rejected)
    files = files_at(catalog.root)
    found: list[tuple[float, int]] = []
    bandwidths: list[float] = []
    unreadable: list[str] = []
    chosen = _spread(tracks, MAX_REMOTE if files.remote else MAX_OPENED)
    with Decoder() as decoder:
        for number, track in enumerate(chosen):
            try:
                length, rate, band = _measure(decoder, files, track, number < MAX_HEARD)
            except (AudioRejected, OSError) as error:
                reason = error.detail if isinstance(error, AudioRejected) else error.strerror
                unreadable.append(f"{shown(track)}: {printable(reason or str(error))}")
                continue
            found.append((length, rate))
            bandwidths += [band] if band else []
    return DataFacts(
        tracks,
        tuple(sorted(length for length, _ in found)),
        tuple(sorted(rate for _, rate in found)),
        tuple(sorted(bandwidths)),
        tuple(unreadable),
        catalog.given,
    )


def _measure(
    decoder: Decoder, files: Files, track: Track, is_heard: bool
) -> tuple[float, int, float | None]:
    """Return length in seconds, rate and bandwidth in Hz; None for one that is not measured.

    Raises:
        AudioRejected, OSError: The track cannot be read.
    """
    fd = files.open(track.path)
    try:
        length, rate = decoder.header(fd)
        end = length if track.end_s is None else min(length, track.end_s)
        if end <= track.start_s:
            raise AudioRejected("E_TOO_SHORT", f"there is no sound in a file of {length:.3g} s")
        try:
            part = track.start_s, end
            band = _bandwidth(decoder, fd, part, rate) if is_heard else None
        except AudioRejected as error:
            if error.code not in _NO_SOUND:
                raise
            band = None
        return end - track.start_s, rate, band
    finally:
        os.close(fd)


def _spread(tracks: Iterable[Track], count: int) -> list[Track]:
    """Choose tracks in turn from each class, in the order of their ids, which are hashes."""
    of_class: dict[str, list[Track]] = defaultdict(list)
    for track in sorted(tracks, key=lambda track: track.track_id):
        of_class[track.label].append(track)
    turns = ((turn, label) for label, one in of_class.items() for turn in range(len(one)))
    return [of_class[label][turn] for turn, label in sorted(turns)[:count]]


def _bandwidth(decoder: Decoder, fd: int, part: tuple[float, float], rate: int) -> float:
    from pipelines.audio.reading import Window

    start_s, end_s = part
    middle = max(start_s, (start_s + end_s - HEARD_SECONDS) / 2)
    window = Window(middle, min(end_s, middle + HEARD_SECONDS))
    return bandwidth_hz(decoder.decode(fd, "", rate, window).samples, rate)


def bandwidth_hz(samples: NDArray[np.float32], rate: int) -> float:
    """Return the frequency above which the mean power spectrum stays below ``FLOOR_DB``.

    Args:
        samples: float32[T], not silent.
        rate: Sample rate, in Hz.
    """
    import numpy as np

    size = min(_FFT_SIZE, len(samples))
    frames = samples[: len(samples) // size * size].reshape(-1, size) * np.blackman(size)
    power = (np.abs(np.fft.rfft(frames)) ** 2).mean(axis=0)
    heard = np.flatnonzero(power > 10 ** (FLOOR_DB / 10) * power.max())
    return float(heard[-1]) * rate / size if heard.size else 0.0


def measure(samples: NDArray[np.float32], rate: int) -> tuple[float, float | None]:
    """Return the level of a track in dB from full scale, and the bandwidth of its middle in Hz.

    The level is the root mean square. The bandwidth is None if the middle is silent.

    Args:
        samples: float32[T], not silent.
        rate: Sample rate, in Hz.
    """
    import numpy as np

    level = 10 * np.log10(float(np.dot(samples, samples)) / len(samples))
    skipped = max(0, len(samples) - round(HEARD_SECONDS * rate)) // 2
    return float(level), bandwidth_hz(samples[skipped : len(samples) - skipped], rate) or None
