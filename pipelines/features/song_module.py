"""The features of whole tracks as a torch module, which ``torch.export`` takes with any length."""

from __future__ import annotations

import torch
from torch.nn import functional

from pipelines.features import song
from pipelines.features.modules import Power, onset_strength, tempos
from pipelines.features.spectra import POWER_FLOOR
from pipelines.settings import Framing


class SongFeatures(torch.nn.Module):
    """The same as ``song.song_features``, which needs less memory and less time.

    The two differ by the rounding of their Fourier transforms. Stored as float16, most numbers are
    equal and the others are neighbours.
    """

    weights: torch.Tensor
    khz: torch.Tensor

    def __init__(self, sample_rate: int, framing: Framing) -> None:
        super().__init__()
        self.sample_rate, self.framing = sample_rate, framing
        self.power = Power(framing, None)
        bands = torch.from_numpy(song.onset_bank(sample_rate, framing.n_fft).weights.T.copy())
        bins = torch.arange(framing.n_fft // 2 + 1, dtype=torch.float64)
        self.register_buffer("weights", bands, persistent=False)
        self.register_buffer("khz", bins * sample_rate / framing.n_fft / 1000.0, persistent=False)

    def forward(self, tracks: torch.Tensor) -> torch.Tensor:
        """Map float32[n, t] to float32[n, 16, 1]; t must be at least n_fft."""
        mean_square, crossings = self._samples_of_frames(tracks)
        power = self.power(tracks)
        levels = 10.0 * torch.log10((self.weights @ power).clamp(min=POWER_FLOOR))
        onsets = onset_strength(levels)
        rhythm = tempos(onsets, self.sample_rate, self.framing.hop_length)
        every, audible = torch.ones_like(mean_square), (mean_square > song.SILENT).double()
        energy_db = 10.0 * torch.log10(mean_square.clamp(min=song.QUIETEST))
        rows = [(energy_db, every), (onsets.double(), every)]
        rows += [(row, audible) for row in (*self._shape(power), crossings)]
        found = [*rhythm, *(part for row, mask in rows for part in _mean_deviation(row, mask))]
        return torch.stack(found, dim=1).float().unsqueeze(2)

    def _samples_of_frames(self, tracks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean square and zero-crossing rate of each frame, float64[n, m] each."""
        length = self.framing.n_fft
        around = functional.pad(tracks, (length // 2, length // 2), mode="reflect")
        signs = torch.signbit(around)
        crossings = self._sums(signs[:, 1:] ^ signs[:, :-1], length - 1)
        return self._sums(around.square(), length) / length, crossings / length

    def _sums(self, values: torch.Tensor, length: int) -> torch.Tensor:
        """Return the sums of values [n, t] in windows of a length at each hop, float64[n, m]."""
        sums = functional.pad(values.double().cumsum(1), (1, 0))
        hop = self.framing.hop_length
        return sums[:, length::hop] - sums[:, : sums.shape[1] - length : hop]

    def _shape(self, power: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return centroid, spread, roll-off in kHz and flatness in dB, float64[n, m] each."""
        magnitude = power.sqrt().double().transpose(1, 2)  # [n, m, bins]
        below = magnitude.cumsum(2)
        total = below[..., -1:].clamp(min=torch.finfo(torch.float64).tiny)
        moments = magnitude @ torch.stack((self.khz, self.khz**2), dim=1) / total
        centroid, square = moments.unbind(2)
        spread = (square - centroid**2).clamp(min=0.0).sqrt()
        place = (below < song.ROLLOFF_SHARE * total).sum(2)
        rolloff = self.khz[place.clamp(max=len(self.khz) - 1)]
        floored = power.clamp(min=song.FLATNESS_FLOOR).double()
        flatness = 10.0 * (floored.log10().mean(1) - floored.mean(1).log10())
        return centroid, spread, rolloff, flatness


def _mean_deviation(row: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation over the frames of a mask, 0 if there are none."""
    count = mask.sum(1).clamp(min=1.0)
    mean = (row * mask).sum(1) / count
    return mean, ((row - mean[:, None]).square() * mask).sum(1).div(count).sqrt()
