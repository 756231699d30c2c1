"""Google's speech embedding: 96 numbers for every 0.8 s of speech, or of other short sounds.

Lin, Kilgour, Roblek and Sharifi 2020, arXiv 2002.01322. The structure and the arithmetic of the
input are those of the two TFLite files in the package pyopen-wakeword.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import torch
from torch import nn
from torch.nn import functional as F

from pipelines.errors import WeightsError
from pipelines.features.networks.tflite import read_tensors
from pipelines.features.spectra import MelBank
from pipelines.weights import load_into

SAMPLE_RATE = 16_000
_FILE = "pyopen_wakeword/models/embedding_model.tflite"

_N_FFT, _WIN_LENGTH, _HOP_LENGTH = 512, 400, 160
_NUM_BANDS, _F_MIN_HZ, _F_MAX_HZ = 32, 60.0, 3800.0
_FULL_SCALE = 32768.0  # the original takes samples of 16 bits
_POWER_FLOOR = 1e-10
_RANGE_DB = 80.0  # below the loudest band of the clip

# Frames under one position, and from one position to the next.
_FRAMES, _STEP = 76, 8
# Silence in front, as at the start of a stream: the first position hears 8 frames of the clip, and
# all of the clip passes through all of the window. Digits at the start of clips of 1 s, speakers
# held out (FSDD): accuracy 0.97 with it, 0.44 without.
_LEAD = (_FRAMES - _STEP) * _HOP_LENGTH
_WINDOW = (_FRAMES - 1) * _HOP_LENGTH + _N_FFT

# Channels of each block, and the frames and bands that its max-pooling joins.
_BLOCKS = ((24, (2, 2)), (48, (1, 2)), (72, (2, 2)), (96, (1, 2)), (96, (2, 2)))
_NUM_CHANNELS = 96
_SLOPE, _LOWEST = 0.2, -0.4  # of the activation


class SpeechEmbedding(nn.Module):
    """The network on samples at 16 kHz, one position every 80 ms.

    No convolution pads time, so it runs over the whole clip at once: each position gives what
    the original gives for a window of 76 frames.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spectrogram = LogMel()
        self.blocks = nn.ModuleList()
        num_in = 1
        for num_out, pool in _BLOCKS:
            self.blocks.append(_block(num_in, num_out, pool))
            num_in = num_out
        self.last = nn.Conv2d(num_in, _NUM_CHANNELS, (3, 1))

    def embed(self, frames: torch.Tensor) -> torch.Tensor:
        """Map frames float32[n, m, 32], m from 76 on, to float32[n, 1 + (m - 76) // 8, 96]."""
        x = frames[:, None]
        for block in self.blocks:
            x = block(x)
        embedded: torch.Tensor = self.last(x)
        return embedded.squeeze(3).transpose(1, 2)

    def forward(self, samples: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map float32[n, l], l from 1 on, to the layer ``pooled`` float32[n, 192].

        Silence is added in front, and behind up to a whole position. The layer holds the means
        over positions, then the maxima.
        """
        beyond = _LEAD + samples.shape[1] - _WINDOW
        step = _STEP * _HOP_LENGTH
        tail = -beyond if beyond < 0 else -beyond % step
        x = self.embed(self.spectrogram(F.pad(samples, (_LEAD, tail))))
        return {"pooled": torch.cat([x.mean(1), x.amax(1)], dim=1)}


class LogMel(nn.Module):
    """Samples at 16 kHz to levels in 32 of Slaney's mel bands, as dB / 10 + 2."""

    window: torch.Tensor
    bank: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        bank = MelBank(SAMPLE_RATE, _N_FFT, _NUM_BANDS, _F_MIN_HZ, _F_MAX_HZ, "slaney")
        self.register_buffer("window", torch.hann_window(_WIN_LENGTH), persistent=False)
        self.register_buffer("bank", torch.from_numpy(bank.weights), persistent=False)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Map float32[n, l], l from 512 on, to float32[n, 1 + (l - 512) // 160, 32].

        Frames start at multiples of the hop. Levels more than 80 dB below the loudest one
        of the clip are raised to that.
        """
        spectrum = torch.stft(
            _FULL_SCALE * samples,
            _N_FFT,
            _HOP_LENGTH,
            _WIN_LENGTH,
            self.window,
            center=False,
            return_complex=True,
        )
        power = torch.view_as_real(spectrum).square().sum(-1).transpose(1, 2) @ self.bank
        levels = 10.0 * torch.log10(power.clamp(min=_POWER_FLOOR))
        floor = levels.amax((1, 2), keepdim=True) - _RANGE_DB
        return torch.maximum(levels, floor) / 10.0 + 2.0


class Activation(nn.Module):
    """Leaky ReLU that stops at -0.4."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map each value."""
        return F.leaky_relu(x, _SLOPE).clamp(min=_LOWEST)


def _block(num_in: int, num_out: int, pool: tuple[int, int]) -> nn.Sequential:
    """Return convolutions over bands and over frames in turn, and a max-pooling of both."""
    kernels = [(3, 3), (1, 3), (3, 1)] if num_in == 1 else [(1, 3), (3, 1)] * 2
    layers: list[nn.Module] = []
    for kernel in kernels:
        # frames are not padded
        layers += [nn.Conv2d(num_in, num_out, kernel, padding=(0, kernel[1] // 2)), Activation()]
        num_in = num_out
    return nn.Sequential(*layers, nn.MaxPool2d(pool))


def convert(wheel: Path) -> dict[str, torch.Tensor]:
    """Read the state of ``SpeechEmbedding``; Keras numbers convolutions by creation.

    A name ends with that of its convolution, as in ``model/conv2d_3/Conv2D``; kernels have four
    axes, biases one.

    Args:
        wheel: The package pyopen-wakeword.

    Raises:
        WeightsError: The file is missing, damaged, or of another network.
    """
    try:
        with ZipFile(wheel) as files:
            tensors = read_tensors(files.read(_FILE))
    except KeyError as error:
        raise WeightsError(f"the package has no network: {error.args[0]}") from error
    module = SpeechEmbedding()
    layers = [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d)]
    ours = {f"conv2d_{i}" if i else "conv2d": layer for i, layer in enumerate(layers)}
    state = {}
    for name, values in tensors.items():
        layer = ours.get(name.split("/")[-2:][0])
        if layer is not None and values.ndim == 4:
            kernel = torch.from_numpy(values.copy())  # [out, frames, bands, in]
            state[f"{layer}.weight"] = kernel.permute(0, 3, 1, 2).contiguous()
        elif layer is not None:
            state[f"{layer}.bias"] = torch.from_numpy(values.copy())
    load_into(module, state, _FILE)
    return state
