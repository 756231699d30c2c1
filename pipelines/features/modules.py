"""Front ends as torch modules: the device form of features, which ``torch.export`` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pipelines.features.rhythm import onset_strength, tempogram
from pipelines.features.spectra import POWER_FLOOR, hann_window

if TYPE_CHECKING:
    from pipelines.features.spectra import MelBank
    from pipelines.settings import Framing


class Decibels(torch.nn.Module):
    """Waveform to power spectrogram in dB, as defined by ``spectra.decibels``."""

    window: torch.Tensor
    weights: torch.Tensor | None

    def __init__(self, framing: Framing, bank: MelBank | None) -> None:
        super().__init__()
        self.n_fft, self.hop_length = framing.n_fft, framing.hop_length
        weights = None if bank is None else torch.from_numpy(bank.weights.T.copy())
        self.register_buffer("window", torch.from_numpy(hann_window(framing).copy()))
        self.register_buffer("weights", weights)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """float32[n, l] -> float32[n, f, m] in dB; l must be above n_fft / 2."""
        spectrum = torch.stft(
            waveform,
            self.n_fft,
            self.hop_length,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = torch.view_as_real(spectrum).square().sum(-1)
        if self.weights is not None:
            power = self.weights @ power
        return 10.0 * torch.log10(torch.clamp(power, min=POWER_FLOOR))


class Cepstrum(torch.nn.Module):
    """Mel-frequency cepstral coefficients: the first rows of the orthonormal DCT-II over bands.

    c[k] = s[k] sum_i x[i] cos(pi k (2 i + 1) / (2 F)), s[0] = sqrt(1 / F), else sqrt(2 / F), the
    definition of torchaudio and librosa. Unlike theirs, levels are not clipped 80 dB below the
    loudest.
    """

    basis: torch.Tensor

    def __init__(self, n_mels: int, n_mfcc: int) -> None:
        super().__init__()
        band = torch.arange(n_mels, dtype=torch.float64)
        order = torch.arange(n_mfcc, dtype=torch.float64)[:, None]
        basis = torch.cos(torch.pi * order * (2 * band + 1) / (2 * n_mels)) * (2 / n_mels) ** 0.5
        basis[0] /= 2**0.5
        self.register_buffer("basis", basis.float())

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        """float32[n, n_mels, m] in dB -> float32[n, n_mfcc, m]."""
        return self.basis @ levels


class Tempogram(torch.nn.Module):
    """Local autocorrelation of the onset strength, as defined by ``rhythm.tempogram``."""

    def __init__(self, n_lags: int) -> None:
        super().__init__()
        self.n_lags = n_lags

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        """float32[n, n_mels, m] in dB -> float32[n, n_lags, m] from 0 to 1."""
        return tempogram(onset_strength(levels), self.n_lags)


class OneRow(torch.nn.Module):
    """The samples themselves, as features of one row."""

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """float32[n, l] -> float32[n, 1, l]."""
        return waveform.unsqueeze(1)
