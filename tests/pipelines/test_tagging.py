from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from torch import nn

from pipelines.features import FeatureSpec
from pipelines.features.extract import front_end
from pipelines.features.networks.tagging import (
    LogMel,
    TaggingNetwork,
    from_decibels,
    window_starts,
)
from tests.pipelines.oracles.original_musicnn import clips


def librosa_frames(clip: np.ndarray) -> np.ndarray:
    """The input of the original networks, without its rounding to float16, [96, m].

    librosa 0.7, which they were trained with, reflects a clip at its ends.
    """
    power = librosa.feature.melspectrogram(
        y=clip.astype(np.float64),
        sr=16_000,
        hop_length=256,
        n_fft=512,
        n_mels=96,
        pad_mode="reflect",
    )
    return np.log10(10_000 * power + 1)


@pytest.mark.parametrize("number", range(3))
def test_the_spectrogram_is_that_of_librosa(number: int) -> None:
    clip = clips()[number].astype(np.float32)
    found = LogMel()(torch.from_numpy(clip)[None])[0].numpy()
    np.testing.assert_allclose(found, librosa_frames(clip), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("number", range(3))
def test_levels_of_a_feature_set_give_the_same_spectrogram(number: int) -> None:
    spec = FeatureSpec(
        sample_rate=16_000, n_fft=512, hop_length=256, n_mels=96, mel_scale="slaney"
    )
    samples = torch.from_numpy(clips()[number].astype(np.float32))[None]
    found = from_decibels(front_end(spec)(samples))
    # Levels stop at -60 dB, which is log10(1 + 1e4 * 1e-6) = 0.0043.
    torch.testing.assert_close(found, LogMel()(samples).clamp(min=0.00432), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("num_samples", [1, 2, 255, 256, 257, 511, 512, 3000])
def test_any_length_has_frames(num_samples: int) -> None:
    samples = torch.sin(torch.arange(num_samples) / 3.0)[None]
    frames = LogMel()(samples)
    assert frames.shape[:2] == (1, 96)
    assert frames.shape[2] >= 1 + num_samples // 256
    assert frames.isfinite().all()


@pytest.mark.parametrize(
    ("num_frames", "starts"),
    [
        (187, [0]),
        (188, [0]),
        (280, [46]),  # 1.497 windows: one in the middle
        (281, [0, 94]),
        (374, [0, 187]),
        (400, [0, 213]),
        (561, [0, 187, 374]),
        (1876, [round(i * 1689 / 9) for i in range(10)]),
    ],
)
def test_windows_are_evenly_spaced_up_to_both_ends(num_frames: int, starts: list[int]) -> None:
    assert window_starts(num_frames) == starts


class Core(nn.Module):
    """Records what it was given; its layer is the mean over frames."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[torch.Tensor] = []

    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        self.given.append(frames)
        return {"mean": frames.mean(2)}


def test_layers_are_averaged_over_windows() -> None:
    core = Core()
    samples = torch.randn(2, 30 * 16_000, generator=torch.Generator().manual_seed(0))
    layers = TaggingNetwork(core, any_length=True)(samples)
    frames = LogMel()(samples)
    wanted = torch.stack([frames[:, :, s : s + 187].mean(2) for s in window_starts(1876)])
    torch.testing.assert_close(layers["mean"], wanted.mean(0))
    assert {given.shape[2] for given in core.given} == {187}
    assert sum(len(given) for given in core.given) == 2 * 10


def test_a_short_clip_is_given_whole_or_repeated() -> None:
    samples = torch.randn(1, 25_600)  # 101 frames
    frames = LogMel()(samples)
    core = Core()
    TaggingNetwork(core, any_length=True)(samples)
    assert torch.equal(core.given[0], frames)
    core = Core()
    TaggingNetwork(core, any_length=False)(samples)
    assert torch.equal(core.given[0], torch.cat([frames, frames[:, :, :86]], dim=2))
