"""One audio file to mono samples, or the reason why it is not used."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr

from pipelines.errors import AudioRejected
from pipelines.signatures import extension_fits, refusal
from pipelines.spec import MAX_RATE_HZ, MIN_RATE_HZ
from pipelines.truncation import Opened, header_flags, shortfall, unopened_shortfall

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

MAX_CHANNELS = 8
MIN_SECONDS = 0.05
MIN_FRAMES = 513  # half of the usual FFT frame of 1024, and one

# Levels relative to full scale 1.0.
_SILENT_PEAK = 1e-4  # -80 dB
_ABSURD_PEAK = 64.0  # +36 dB: integers in a float file, or noise from a damaged one
_LOSSY_OVERSHOOT = 1.41  # +3 dB, what a lossy decoder adds to loud music
_CANCELLED_POWER = 1e-3  # mono mix 30 dB below its channels
_FULL_SCALE = 0.999

_BLOCK_FRAMES = 65536

_PCM = frozenset({"PCM_16", "PCM_24", "PCM_32", "PCM_S8", "PCM_U8", "FLOAT", "DOUBLE"})
_ALAC = frozenset({"ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32"})
_LOSSY = frozenset({"VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"})
_SUBTYPES = _PCM | _ALAC | _LOSSY | {"ULAW", "ALAW"}


@dataclass(frozen=True)
class Decoded:
    """The sound of one file.

    Attributes:
        samples: float32[T], mono, at the rate asked for.
        flags: remarks `W_...` on a file that is used all the same, sorted.
        pcm_digest: hex digest of the mono samples before resampling and of their rate: equal for
            exact copies, whatever lossless container they are in.
        seconds: length of what was decoded.
    """

    samples: NDArray[np.float32]
    flags: tuple[str, ...]
    pcm_digest: str
    seconds: float


@dataclass
class _Levels:
    """Sums over the source samples, block by block."""

    frames: int = 0
    peak: float = 0.0
    total: float = 0.0
    power: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    num_full_scale: int = 0
    channel_power: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))


def decode(path: Path, sample_rate: int, max_seconds: float = 1800.0) -> Decoded:
    """Decodes a file to mono at one rate; equal weights for all channels.

    Lengths in headers are claims: the file is read in blocks until it ends, and memory grows with
    what is there. Only the first `max_seconds` are read (flag W_LONG). A mix in which the channels
    cancel is replaced by the strongest channel (flag W_PHASE).

    Args:
        path: the file; a link is followed, anything but a regular file is refused.
        sample_rate: Hz of the samples returned.
        max_seconds: where reading stops.

    Raises:
        AudioRejected: The file is not used; the error carries the reason code.
    """
    with _opened(path) as (fd, sound):
        _check_limits(sound)
        weights = np.full(sound.channels, 1.0 / sound.channels, dtype=np.float32)
        opened = Opened(str(sound.format), int(sound.frames), str(sound.extra_info))
        samples, levels, digest, at_end = _read(fd, sound, weights, sample_rate, max_seconds)
        fault = shortfall(fd, opened, levels.frames) if at_end else None
        subtype, rate = str(sound.subtype), int(sound.samplerate)
    flags = set(header_flags(opened)) if at_end else {"W_LONG"}
    _check_length(levels, rate, fault, opened.log)
    if _cancelled(levels):
        strongest = np.zeros_like(weights)
        strongest[int(np.argmax(levels.channel_power))] = 1.0
        with _opened(path) as (fd, sound):
            samples, levels, digest, _ = _read(fd, sound, strongest, sample_rate, max_seconds)
        flags.add("W_PHASE")
    _check_levels(levels)
    flags |= _level_flags(levels, subtype)
    if not extension_fits(path, opened.container):
        flags.add("W_EXT")
    if rate < sample_rate:
        flags.add("W_BAND")
    if _silent_share(samples, sample_rate) > 0.8:
        flags.add("W_MOSTLY_SILENT")
    return Decoded(samples, tuple(sorted(flags)), digest, levels.frames / rate)


class _Forward(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no annotations
    """A file that is read from front to end.

    soundfile seeks after every read of a seekable file; that fails on FLAC files whose header
    is slightly wrong and which decode well.
    """

    def seekable(self) -> bool:
        """Always False, so that reading never seeks."""
        return False


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, soundfile.SoundFile]]:
    """Opens a regular file without ever waiting for it; a FIFO would block for ever."""
    fd = _open_regular(path)
    try:
        size = os.fstat(fd).st_size
        if size == 0:
            raise AudioRejected("E_EMPTY", "the file has 0 bytes")
        try:
            sound = _Forward(fd, closefd=False)
        except (soundfile.LibsndfileError, TypeError, ValueError) as error:
            code, detail = refusal(os.pread(fd, 4096, 0))
            if cut := unopened_shortfall(fd):
                code, detail = "E_TRUNCATED", cut
            raise AudioRejected(code, f"{detail} ({size} bytes)") from error
        with sound:
            yield fd, sound
    finally:
        os.close(fd)


def _open_regular(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise AudioRejected("E_PERM", "no permission to read the file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.EIO):
            raise
        raise AudioRejected("E_MISSING", "no such file, or a link that leads nowhere") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise AudioRejected("E_NOT_AUDIO", "a folder, pipe or device, not a regular file")
    return fd


def _check_limits(sound: soundfile.SoundFile) -> None:
    if not 1 <= sound.channels <= MAX_CHANNELS:
        raise AudioRejected(
            "E_CHANNELS", f"{sound.channels} channels; 1 to {MAX_CHANNELS} are read"
        )
    if not MIN_RATE_HZ <= sound.samplerate <= MAX_RATE_HZ:
        raise AudioRejected(
            "E_RATE", f"{sound.samplerate} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are read"
        )
    if sound.subtype not in _SUBTYPES:
        raise AudioRejected(
            "E_SUBTYPE", f"{sound.subtype} coding in {sound.format} is not read; convert it to PCM"
        )


def _read(
    fd: int,
    sound: soundfile.SoundFile,
    weights: NDArray[np.float32],
    sample_rate: int,
    max_seconds: float,
) -> tuple[NDArray[np.float32], _Levels, str, bool]:
    """Reads, mixes, resamples: samples, levels, digest, and whether the end was reached."""
    rate = int(sound.samplerate)
    limit = max(1, int(max_seconds * rate))
    levels = _Levels(channel_power=np.zeros(sound.channels))
    digest = hashlib.blake2b(str(rate).encode(), digest_size=16)
    resampler = None
    if rate != sample_rate:
        resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    parts: list[NDArray[np.float32]] = []
    while levels.frames < limit:
        block = _block(fd, sound, min(_BLOCK_FRAMES, limit - levels.frames), levels.frames)
        if len(block) == 0:
            break
        mono = block[:, 0] if len(weights) == 1 else block @ weights
        _measure(levels, block, mono)
        digest.update(mono.tobytes())
        parts.append(mono if resampler is None else resampler.resample_chunk(mono))
    at_end = levels.frames < limit or len(_block(fd, sound, 1, levels.frames)) == 0
    if resampler is not None:
        parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return samples, levels, digest.hexdigest(), at_end


def _block(fd: int, sound: soundfile.SoundFile, frames: int, position: int) -> NDArray[np.float32]:
    try:
        block: NDArray[np.float32] = sound.read(frames, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        text = f"decoder error after {position} frames: {error}"
        # A FLAC frame with a wrong checksum is an 'unknown error'; other errors with the file
        # read to its end mean that the end is missing.
        at_end = os.lseek(fd, 0, os.SEEK_CUR) >= os.fstat(fd).st_size
        cut = sound.format == "FLAC" and at_end and "unknown error" not in str(error)
        raise AudioRejected("E_TRUNCATED" if cut else "E_DECODE", text) from error
    return block


def _measure(levels: _Levels, block: NDArray[np.float32], mono: NDArray[np.float32]) -> None:
    low, high = float(block.min()), float(block.max())
    peak = max(-low, high)
    if not np.isfinite(peak) or not np.isfinite(low + high):
        raise AudioRejected("E_NONFINITE", f"NaN or infinite samples by frame {levels.frames}")
    levels.peak = max(levels.peak, peak)
    if peak > _ABSURD_PEAK:
        raise AudioRejected(
            "E_RANGE", f"samples up to {peak:.4g}; full scale is 1.0: integers in a float file?"
        )
    if peak >= _FULL_SCALE:
        levels.num_full_scale += int(np.count_nonzero(np.abs(block) >= _FULL_SCALE))
    levels.low = min(levels.low, float(mono.min()))
    levels.high = max(levels.high, float(mono.max()))
    levels.total += float(mono.sum(dtype=np.float64))
    levels.power += float(np.dot(mono, mono))
    levels.channel_power += np.einsum("tc,tc->c", block, block)
    levels.frames += len(block)


def _check_length(levels: _Levels, rate: int, fault: tuple[str, str] | None, log: str) -> None:
    if levels.frames == 0 and (fault is None or fault[0] != "E_CLAIM") and "Ogg" not in log:
        raise AudioRejected(
            "E_ZERO_FRAMES", "a header and no samples; was it streamed and never finished?"
        )
    if fault is not None:
        raise AudioRejected(*fault)
    if levels.frames == 0:
        raise AudioRejected("E_ZERO_FRAMES", "a header and no samples")
    if levels.frames < MIN_FRAMES or levels.frames < MIN_SECONDS * rate:
        raise AudioRejected(
            "E_TOO_SHORT",
            f"{levels.frames} samples, {levels.frames / rate:.4f} s; at least {MIN_FRAMES} "
            f"samples and {MIN_SECONDS} s are needed",
        )


def _cancelled(levels: _Levels) -> bool:
    strongest = float(levels.channel_power.max())
    audible = strongest / levels.frames > _SILENT_PEAK**2
    return audible and levels.power < _CANCELLED_POWER * strongest


def _check_levels(levels: _Levels) -> None:
    swing = (levels.high - levels.low) / 2
    if swing < _SILENT_PEAK:
        offset = levels.total / levels.frames
        if abs(offset) > _SILENT_PEAK:
            raise AudioRejected("E_DC", f"a constant {offset:.4g} and no sound")
        raise AudioRejected("E_SILENT", f"silence: the peak is {levels.peak:.2g} of full scale")


def _level_flags(levels: _Levels, subtype: str) -> set[str]:
    flags = set()
    if levels.peak > (_LOSSY_OVERSHOOT if subtype in _LOSSY else 1.0):
        flags.add("W_OVER")
    if levels.num_full_scale > 0.1 * levels.frames * len(levels.channel_power):
        flags.add("W_CLIPPED")
    return flags


def _silent_share(samples: NDArray[np.float32], sample_rate: int) -> float:
    size = max(1, sample_rate // 20)  # 50 ms
    whole = len(samples) // size * size
    if whole == 0:
        return 0.0
    peaks = np.abs(samples[:whole]).reshape(-1, size).max(axis=1)
    return float(np.mean(peaks < _SILENT_PEAK))
