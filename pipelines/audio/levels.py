"""Levels of a file, measured block by block, and the verdicts that follow from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import AudioRejected

# Levels relative to full scale 1.0.
SILENT_PEAK = 1e-4  # -80 dB
_ABSURD_PEAK = 64.0  # +36 dB: integers in a float file, or noise from a damaged one
_LOSSY_OVERSHOOT = 1.41  # +3 dB, what a lossy decoder adds to loud music
_CANCELLED_POWER = 1e-3  # mono mix 30 dB below its channels
_CANCELLING_POWER = 1e-2  # of one block; such blocks decide which channel is the strongest
_FULL_SCALE = 0.999
_CLIPPED_SHARE = 0.1
_MOSTLY = 0.8
_SILENCE_SECONDS = 0.05

# The powers of single channels are measured on every n-th frame. They only decide which of the
# channels that cancel is the strongest.
_THINNED = 16

# Clicks: single samples that do not belong to the sound around them, as bit flips leave them.
_MIN_JUMP = 0.1  # of full scale: a smaller one does not harm a spectrogram
_OUTLIER = 4.0  # times the worst error of the same prediction nearby
_REACH = 24  # samples on either side to compare a jump with
_FLOOR = 2.0**-12  # so that an odd sample in exact silence only needs _MIN_JUMP


class Levels:
    """Extremes and powers of the source samples of one file.

    Attributes:
        frames: Source frames measured.
        peak: Largest magnitude in any channel.
        num_clicks: Blocks with a click.
    """

    def __init__(self, num_channels: int, *, lossy: bool) -> None:
        """Start measuring.

        Args:
            num_channels: Channels of the source.
            lossy: True if its coding overshoots full scale and smears single samples,
                so that searching for clicks is useless.
        """
        self.frames = 0
        self.peak = 0.0
        self.num_clicks = 0
        self._lossy = lossy
        self._low = np.inf
        self._high = -np.inf
        self._num_full_scale = 0
        self._mono_power = 0.0
        self._power = 0.0
        self._channel_power = np.zeros(num_channels)

    def check(self, block: NDArray[np.float32]) -> None:
        """Check a block before anything is computed from it.

        Args:
            block: float32[t, c], not empty.

        Raises:
            AudioRejected: E_NONFINITE or E_RANGE.
        """
        low, high = float(block.min()), float(block.max())
        if not np.isfinite(low + high):
            raise AudioRejected("E_NONFINITE", f"NaN or infinite samples by frame {self.frames}")
        peak = max(-low, high)
        if peak > _ABSURD_PEAK:
            raise AudioRejected(
                "E_RANGE",
                f"samples up to {peak:.4g}; full scale is 1.0: integers in a float file?",
            )
        if peak >= _FULL_SCALE:
            self._num_full_scale += int(np.count_nonzero(np.abs(block) >= _FULL_SCALE))
        self.peak = max(self.peak, peak)

    def add(self, block: NDArray[np.float32], mono: NDArray[np.float32]) -> None:
        """Measure a checked block float32[t, c] and its mono mix float32[t]."""
        if self._high - self._low < 2 * SILENT_PEAK:  # otherwise it is known to have sound
            self._low = min(self._low, float(mono.min()))
            self._high = max(self._high, float(mono.max()))
        if not self._lossy:
            self.num_clicks += has_click(mono)
        self.frames += len(block)
        if block.shape[1] == 1:
            return
        flat = block.reshape(-1)
        mono_power, power = float(np.dot(mono, mono)), float(np.dot(flat, flat))
        self._mono_power += mono_power
        self._power += power
        if mono_power * block.shape[1] < _CANCELLING_POWER * power:
            thin = block[::_THINNED]
            self._channel_power += np.einsum("tc,tc->c", thin, thin)

    def cancelled(self) -> int | None:
        """Return the strongest channel if the channels cancel in the mono mix, else None."""
        num_channels = len(self._channel_power)
        # The strongest channel has at least the mean power.
        strongest = max(float(self._channel_power.max()) * _THINNED, self._power / num_channels)
        audible = self.frames > 0 and strongest / self.frames > SILENT_PEAK**2
        if num_channels > 1 and audible and self._mono_power < _CANCELLED_POWER * strongest:
            return int(np.argmax(self._channel_power))
        return None

    def check_sound(self) -> None:
        """Check the whole file.

        Raises:
            AudioRejected: E_SILENT or E_DC.
        """
        if (self._high - self._low) / 2 >= SILENT_PEAK:
            return
        offset = (self._high + self._low) / 2
        if abs(offset) > SILENT_PEAK:
            raise AudioRejected("E_DC", f"a constant {offset:.4g} and no sound")
        raise AudioRejected("E_SILENT", f"silence: the peak is {self.peak:.2g} of full scale")

    def flags(self) -> set[str]:
        """Return the remarks on a file that is used."""
        flags = set()
        if self.peak > (_LOSSY_OVERSHOOT if self._lossy else 1.0):
            flags.add("W_OVER")
        if self._num_full_scale > _CLIPPED_SHARE * self.frames * len(self._channel_power):
            flags.add("W_CLIPPED")
        if self.num_clicks:
            flags.add("W_CLICK")
        return flags


def mostly_silent(samples: NDArray[np.float32], sample_rate: int) -> bool:
    """Return True if more than four fifths of a file are silent.

    Args:
        samples: float32[T], mono.
        sample_rate: Hz.
    """
    size = max(1, round(_SILENCE_SECONDS * sample_rate))
    num_pieces = len(samples) // size
    silent = 0
    step = max(1, 65536 // size)  # a number of pieces that stays in the cache
    for first in range(0, num_pieces, step):
        pieces = samples[first * size : min(first + step, num_pieces) * size].reshape(-1, size)
        silent += int(np.count_nonzero(np.abs(pieces).max(axis=1) < SILENT_PEAK))
    return silent > _MOSTLY * num_pieces


def has_click(mono: NDArray[np.float32]) -> bool:
    """Return True if one sample jumps away from its neighbours and the next one jumps back.

    A cubic through two samples on either side predicts the sample with the sharpest jump there
    and back. It is a click if the prediction error is a tenth of full scale and four times any
    prediction error nearby. The edge of a clip, an attack or the crackle of a record lasts
    longer than one sample. Samples within _REACH of either end are ignored.

    Args:
        mono: float32[t], one block of a file.
    """
    if len(mono) < 2 * _REACH + 5:
        return False
    step = mono[1:] - mono[:-1]
    if max(float(step.max()), -float(step.min())) < _MIN_JUMP:
        return False
    turn = step[1:] * step[:-1]
    margin = _REACH + 1
    at = int(turn[margin:-margin].argmin()) + margin + 1
    around = mono[at - _REACH - 2 : at + _REACH + 3].astype(np.float64)
    middle = _REACH + 2
    predicted = _cubic(around)[middle - 2]
    jump = abs(around[middle] - predicted)
    around[middle] = predicted
    misses = np.abs(around[2:-2] - _cubic(around))
    return bool(jump > _MIN_JUMP and jump > _OUTLIER * max(float(misses.max()), _FLOOR))


def _cubic(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Predict each sample except two at either end from its four neighbours."""
    near = samples[1:-3] + samples[3:-1]
    far = samples[:-4] + samples[4:]
    return (4.0 * near - far) / 6.0
