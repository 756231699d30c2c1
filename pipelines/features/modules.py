"""Front ends as torch modules, which ``torch.export`` takes, and the rhythm they measure."""

from __future__ import annotations

import math

import torch

from pipelines.features.spectra import POWER_FLOOR, MelBank, hann_window
from pipelines.settings import ClipSpec, Framing


class Power(torch.nn.Module):
    """Waveform to power spectrogram, of Fourier bins or summed over mel bands."""

    window: torch.Tensor
    weights: torch.Tensor | None

    def __init__(self, framing: Framing, bank: MelBank | None) -> None:
        super().__init__()
        self.n_fft, self.hop_length = framing.n_fft, framing.hop_length
        window = torch.from_numpy(hann_window(framing).copy())
        weights = None if bank is None else torch.from_numpy(bank.weights.T.copy())
        # Not persistent: the settings say what they are, so files of weights do not hold them.
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Map float32[n, l] to float32[n, f, m]; l must be above n_fft / 2."""
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
        return power if self.weights is None else self.weights @ power


class Decibels(torch.nn.Module):
    """Waveform to power spectrogram in dB, as defined by ``spectra.decibels``."""

    def __init__(self, framing: Framing, bank: MelBank | None) -> None:
        super().__init__()
        self.power = Power(framing, bank)
        self.power_floor = POWER_FLOOR if bank is None else bank.power_floor

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Map float32[n, l] to float32[n, f, m] in dB; l must be above n_fft / 2."""
        return 10.0 * torch.log10(torch.clamp(self.power(waveform), min=self.power_floor))


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
        """Map float32[n, n_mels, m] in dB to float32[n, n_mfcc, m]."""
        return self.basis @ levels


class Tempogram(torch.nn.Module):
    """Local autocorrelation of the onset strength, see ``tempogram``."""

    def __init__(self, n_lags: int) -> None:
        super().__init__()
        self.n_lags = n_lags

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        """Map float32[n, n_mels, m] in dB to float32[n, n_lags, m] from 0 to 1."""
        return tempogram(onset_strength(levels), self.n_lags)


class OneRow(torch.nn.Module):
    """The samples themselves, as features of one row."""

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Map float32[n, l] to float32[n, 1, l]."""
        return waveform.unsqueeze(1)


_MILLION = 1_000_000


class Cut(torch.nn.Module):
    """The clips of whole tracks, as ``extract.cut`` takes them from tracks that are long enough.

    A track that is longer than a clip by fewer samples than it has clips gives equal ones.

    Attributes:
        least: Samples of the shortest track: one clip, or two if they are cut by hop, because
            ``torch.export`` takes a number of one for a constant.
    """

    def __init__(self, sample_rate: int, clip: ClipSpec) -> None:
        super().__init__()
        self.length = round(clip.clip_seconds * sample_rate)
        self.hop = None if clip.hop_seconds is None else clip.hop_seconds * sample_rate
        self.count = clip.clips_per_track or 1
        self.least = self.length + math.ceil(self.hop or 0)

    def forward(self, tracks: torch.Tensor) -> torch.Tensor:
        """Map float32[n, t] to clips float32[n, c, l]; t must be at least ``least``."""
        last = tracks.shape[1] - self.length
        if self.hop is not None:
            # In integers, because pt2 files hold no other arithmetic of lengths.
            count = last * _MILLION // round(self.hop * _MILLION) + 1
            starts = torch.arange(count, dtype=torch.float64) * self.hop
        elif self.count == 1:
            starts = torch.zeros(1) + last // 2
        else:
            starts = torch.arange(self.count, dtype=torch.float64) * last / (self.count - 1)
        firsts = starts.round().long()[:, None]
        return tracks[:, firsts + torch.arange(self.length)]


# Smallest onset of a frame that counts, in dB. The rounding of float32 changes a steady sound by
# less, and normalisation would blow that up to a rhythm.
_ONSET_FLOOR_DB = 0.01

_VALUES_AT_ONCE = 2**20  # in the windows of a track; with their spectra they take about 25 MB

# The prior of ``tempo``, that of librosa.feature.tempo: log-normal around 120 BPM with a
# standard deviation of one octave, cut off at 320.
_USUAL_BPM = 120.0
_MAX_BPM = 320.0
_TEMPO_WINDOW_SECONDS = 8.0


def onset_strength(levels: torch.Tensor) -> torch.Tensor:
    """Compute how much the levels rise from frame to frame: spectral flux in dB.

    o[t] = mean over bands of max(0, S[t] - S[t - 1]), o[0] = 0 (Böck and Widmer 2013, without
    their maximum filter). This is librosa.onset.onset_strength with center=False.

    Args:
        levels: float32[n, f, m] in dB.

    Returns:
        float32[n, m] in dB a frame, at least 0.
    """
    rise = torch.relu(levels[:, :, 1:] - levels[:, :, :-1]).mean(dim=1)
    return torch.nn.functional.pad(rise, (1, 0))


def tempogram(onsets: torch.Tensor, n_lags: int) -> torch.Tensor:
    """Compute the local autocorrelation of the onset strength (Grosche, Müller and Kurth 2010).

    Around each frame t, w[i] = o[t - n_lags // 2 + i] hann[i] for i below n_lags, and
    r[k] = sum_i w[i] w[i + k] / sum_i w[i]^2. Beyond both ends the onset strength falls to 0
    linearly over n_lags // 2 frames. This is librosa.feature.tempogram on the same onsets, with
    one difference: where all onsets are below 0.01 dB, r is divided as if they were 0.01 dB, so
    that a steady sound has no rhythm.

    Args:
        onsets: float32[n, m] in dB.
        n_lags: Number of lags k, from 0 frames on, and of frames under the window.

    Returns:
        float32[n, n_lags, m] from 0 to 1; row 0 is 1 wherever there are onsets.
    """
    return _autocorrelation(_windows(onsets, n_lags)).transpose(1, 2)


def tempo(onsets: torch.Tensor, sample_rate: int, hop_length: int) -> tuple[float, float]:
    """Estimate the tempo of a whole track, and how clear it is.

    The tempo is the lag with the highest log(1 + 1e6 r) + log prior, where r is the mean
    tempogram over windows of 8 s: librosa.feature.tempo with its defaults, on the same onsets.

    Args:
        onsets: float32[m] in dB.
        sample_rate: Sample rate, in Hz.
        hop_length: Samples between frames.

    Returns:
        Beats per minute, and how far r at that lag lies above the lowest r before it, 0 to 1.
        Both are 0 for a track without onsets.
    """
    n_lags = _tempo_lags(sample_rate, hop_length)
    windows = _windows(onsets[None], n_lags)[0]
    total = torch.zeros(n_lags, dtype=torch.float64)
    step = max(1, _VALUES_AT_ONCE // n_lags)
    for start in range(0, len(windows), step):
        total += _autocorrelation(windows[start : start + step]).sum(dim=0)
    bpm, clarity = _strongest_beat(total[None] / len(onsets), sample_rate, hop_length)
    return float(bpm), float(clarity)


def tempos(
    onsets: torch.Tensor, sample_rate: int, hop_length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Estimate ``tempo`` for float32[n, m] at once, in memory for all frames; float64[n] twice."""
    n_lags = _tempo_lags(sample_rate, hop_length)
    # A copy, because torch.export would bind the order of a view's strides, hence the length.
    windows = _windows(onsets, n_lags).contiguous()
    total = _autocorrelation(windows).sum(dim=1, dtype=torch.float64)
    return _strongest_beat(total / onsets.shape[1], sample_rate, hop_length)


def _tempo_lags(sample_rate: int, hop_length: int) -> int:
    return max(2, int(_TEMPO_WINDOW_SECONDS * sample_rate) // hop_length)


def _strongest_beat(
    mean: torch.Tensor, sample_rate: int, hop_length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Map mean tempograms float64[n, n_lags] to beats per minute and their clarity."""
    lags = torch.arange(1, mean.shape[1], dtype=torch.float64)
    mean = mean[:, 1:]
    bpm = 60.0 * sample_rate / (hop_length * lags)
    prior = -0.5 * (torch.log2(bpm) - torch.log2(torch.tensor(_USUAL_BPM))) ** 2
    possible = bpm < _MAX_BPM
    score = torch.where(possible, torch.log1p(1e6 * mean) + prior, -torch.inf)
    best = score.argmax(1, keepdim=True)
    clarity = (mean - mean.cummin(1).values).gather(1, best)[:, 0]
    found = possible.any() & (mean.amax(1) > 0)
    return torch.where(found, bpm[best[:, 0]], 0.0), torch.where(found, clarity, 0.0)


def _windows(onsets: torch.Tensor, n_lags: int) -> torch.Tensor:
    """Map float32[n, m] to float32[n, m, n_lags], a view of the frames around each frame."""
    half = n_lags // 2
    ramp = torch.arange(half, dtype=onsets.dtype, device=onsets.device) / half
    before, after = onsets[:, :1] * ramp, onsets[:, -1:] * ramp.flip(0)
    around = torch.cat((before, onsets, after), dim=1)
    return around.unfold(1, n_lags, 1)[:, : onsets.shape[1]]


def _autocorrelation(windows: torch.Tensor) -> torch.Tensor:
    """Map float32[..., k] to float32[..., k], one value per lag, divided by that of lag 0."""
    n_lags = windows.shape[-1]
    hann = torch.hann_window(n_lags, dtype=windows.dtype, device=windows.device)
    # twice as long, so that no lag wraps around
    spectrum = torch.fft.rfft(windows * hann, n=2 * n_lags)
    power = torch.view_as_real(spectrum).square().sum(-1)
    products = torch.fft.irfft(power, n=2 * n_lags)[..., :n_lags]
    least = _ONSET_FLOOR_DB**2 * hann.square().sum()
    # rounding leaves some products slightly below 0
    shares: torch.Tensor = products.clamp(min=0.0) / torch.maximum(products[..., :1], least)
    return shares
