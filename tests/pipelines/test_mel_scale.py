from __future__ import annotations

import librosa
import numpy as np
import pytest
from librosa.filters import mel as librosa_mel

from pipelines.features import FeatureSpec
from pipelines.features.mel_scale import MelScale, mel_edges_hz
from pipelines.features.rules import empty_mel_bands


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize(
    ("n_mels", "f_min", "f_max"), [(1, 0, 4000), (96, 0, 8000), (40, 900, 1100), (12, 20, 500)]
)
def test_edges_are_those_of_librosa(
    scale: MelScale, n_mels: int, f_min: float, f_max: float
) -> None:
    theirs = librosa.mel_frequencies(n_mels + 2, fmin=f_min, fmax=f_max, htk=scale == "htk")
    np.testing.assert_allclose(mel_edges_hz(scale, n_mels, f_min, f_max), theirs, atol=1e-8)


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize(("n_fft", "n_mels"), [(512, 96), (512, 128), (256, 100), (1024, 200)])
def test_empty_bands_of_slaney_are_those_of_librosa(n_fft: int, n_mels: int) -> None:
    bank = librosa_mel(sr=16000, n_fft=n_fft, n_mels=n_mels)
    feature = FeatureSpec(sample_rate=16000, n_fft=n_fft, n_mels=n_mels, mel_scale="slaney")
    assert empty_mel_bands(feature) == [band for band in range(n_mels) if bank[band].max() == 0]


def test_the_usual_scale_is_not_part_of_a_name() -> None:
    assert "mel_scale" not in FeatureSpec().canonical()
    assert FeatureSpec(mel_scale="slaney").canonical()["mel_scale"] == "slaney"
    assert "mel_scale" not in FeatureSpec(kind="stft", mel_scale="slaney").canonical()
