"""The mel filter bank, and sums over its bands that leave out its zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Neighbouring bands that are summed in one matrix product. The product of few bands with the bins
# they cover has few zeros; the product of very few is slower for its size.
_BANDS_AT_ONCE = 16


class MelBank:
    """Triangular bands on the HTK mel scale, each with peak 1 (torchaudio's `norm=None`).

    mel = 2595 log10(1 + f / 700) (O'Shaughnessy, as in HTK). Edges are evenly spaced in mel from
    f_min to f_max; band i rises from edge i to edge i + 1 and falls to edge i + 2. Bin k of the
    FFT is at k sample_rate / n_fft Hz.

    Args:
        sample_rate: Hz.
        n_fft: length of the FFT.
        n_mels: number of bands.
        f_min: lower edge of the lowest band, Hz.
        f_max: upper edge of the highest band, Hz.

    Attributes:
        weights: float32[n_fft // 2 + 1, n_mels], computed in float64.
        num_bands: n_mels.
    """

    def __init__(
        self, sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float
    ) -> None:
        lowest, highest = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (f_min, f_max))
        mels = np.linspace(lowest, highest, n_mels + 2)
        edges_hz = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
        bins_hz = np.arange(n_fft // 2 + 1)[:, np.newaxis] * sample_rate / n_fft
        rise = (bins_hz - edges_hz[:-2]) / np.diff(edges_hz)[:-1]
        fall = (edges_hz[2:] - bins_hz) / np.diff(edges_hz)[1:]
        self.weights: NDArray[np.float32] = np.maximum(np.minimum(rise, fall), 0).astype("f4")
        self.num_bands = n_mels
        self._groups = list(self._split())

    def sum_bands(self, power: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Sums the power of the bins of each band: power @ weights.

        Args:
            power: float32[B, n_fft // 2 + 1].
            out: float32[B, n_mels] that is filled.
        """
        for bins, bands, weights in self._groups:
            np.matmul(power[:, bins], weights, out=out[:, bands])

    def _split(self) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
        for first in range(0, self.num_bands, _BANDS_AT_ONCE):
            bands = slice(first, first + _BANDS_AT_ONCE)
            used = np.flatnonzero(self.weights[:, bands].any(axis=1))
            bins = slice(used[0], used[-1] + 1) if used.size else slice(0, 1)
            yield bins, bands, np.ascontiguousarray(self.weights[bins, bands])
