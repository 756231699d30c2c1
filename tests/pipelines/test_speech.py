from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.errors import WeightsError
from pipelines.features.networks.speech import SpeechEmbedding, convert
from pipelines.features.networks.store import load
from tests.pipelines import oracles
from tests.pipelines.oracles.original_speech import clips, padded
from tests.pipelines.tflite_files import model, write

# channels of the twenty convolutions, in and out, and their frames and bands
SIZES = [(1, 24, 3, 3), (24, 24, 1, 3), (24, 24, 3, 1)]
SIZES += [
    (num_in if number == 0 else num_out, num_out, *kernel)
    for num_in, num_out in ((24, 48), (48, 72), (72, 96), (96, 96))
    for number, kernel in enumerate([(1, 3), (3, 1), (1, 3), (3, 1)])
]
SIZES += [(96, 96, 3, 1)]


def tensors() -> dict[str, np.ndarray]:
    """Random values under the names of the real file."""
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {"model/tf.math.maximum/Maximum/y": np.array(-0.4, "f4")}
    for number, (num_in, num_out, frames, bands) in enumerate(SIZES):
        name = f"model/conv2d_{number}/Conv2D" if number else "model/conv2d/Conv2D"
        kernel = rng.standard_normal((num_out, frames, bands, num_in)).astype("f4")
        bias = rng.standard_normal(num_out).astype("f4")
        if number == len(SIZES) - 1:
            found |= {name: bias, f"{name}1": kernel}
        else:
            norm = f"model/batch_normalization_{number}/FusedBatchNormV3"
            found |= {name: kernel, f"{norm};model/conv2d_2/Conv2D;{name}": bias}
    return found


def wheel(folder: Path, content: bytes, name: str = "embedding_model") -> Path:
    with zipfile.ZipFile(folder / "package.whl", "w") as file:
        file.writestr(f"pyopen_wakeword/models/{name}.tflite", content)
    return folder / "package.whl"


def random_network() -> SpeechEmbedding:
    """Without its weights; larger ones than torch's, under which all inputs give much the same."""
    torch.manual_seed(0)
    network = SpeechEmbedding().eval().requires_grad_(False)
    for part in network.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.weight *= 2.5
    return network


def test_kernels_and_biases_are_found_by_their_names(tmp_path: Path) -> None:
    made = tensors()
    state = convert(wheel(tmp_path, write(model(made))))
    module = SpeechEmbedding()
    module.load_state_dict(state)
    kernel = made["model/conv2d_7/Conv2D"]
    bias = made["model/conv2d_19/Conv2D"]
    np.testing.assert_array_equal(state["blocks.2.0.weight"][5, 7, 0, 2], kernel[5, 0, 2, 7])
    np.testing.assert_array_equal(state["last.bias"], bias)


def test_a_package_without_the_network_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no network: .*embedding_model"):
        convert(wheel(tmp_path, b"", "alexa"))


def test_another_network_is_rejected(tmp_path: Path) -> None:
    made = tensors()
    del made["model/conv2d_19/Conv2D1"]
    made["model/conv2d_1/Conv2D"] = np.zeros((24, 3, 1, 24), "f4")
    with pytest.raises(WeightsError, match=r"missing: last.weight; of another shape: blocks.0.2"):
        convert(wheel(tmp_path, write(model(made))))


@pytest.mark.parametrize("num_samples", [1, 511, 1632, 1633, 8000, 20_000])
def test_clips_of_any_length_have_features_of_their_own(num_samples: int) -> None:
    clip = torch.randn(2, num_samples, generator=torch.Generator().manual_seed(0))
    pooled = random_network()(clip)["pooled"]
    assert pooled.shape == (2, 192)
    assert pooled.isfinite().all()
    assert (pooled[:, :96] <= pooled[:, 96:] + 1e-6).all()  # no mean is above the maximum
    np.testing.assert_allclose(random_network()(clip[1:])["pooled"], pooled[1:], atol=1e-4)


def test_digital_silence_has_finite_features() -> None:
    assert random_network()(torch.zeros(1, 4000))["pooled"].isfinite().all()


def test_both_ends_of_a_clip_count() -> None:
    clip = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    network = random_network()
    for end in (slice(0, 100), slice(-100, None)):
        changed = clip.clone()
        changed[:, end] = 0
        assert (network(changed)["pooled"] - network(clip)["pooled"]).abs().max() > 1e-3


def test_positions_are_windows_of_76_frames() -> None:
    frames = torch.randn(1, 131, 32, generator=torch.Generator().manual_seed(0))
    network = random_network()
    embedded = network.embed(frames)
    assert embedded.shape == (1, 7, 96)
    for number in range(7):
        alone = network.embed(frames[:, 8 * number : 8 * number + 76])
        np.testing.assert_allclose(alone[:, 0], embedded[:, number], atol=1e-4)


def test_the_network_can_be_exported() -> None:
    network = random_network()
    clips_of_1_s = torch.randn(3, 16_000, generator=torch.Generator().manual_seed(0))
    shapes = {"samples": {0: torch.export.Dim("n")}}
    exported = torch.export.export(network, (clips_of_1_s[:2],), dynamic_shapes=shapes).module()
    found, expected = exported(clips_of_1_s)["pooled"], network(clips_of_1_s)["pooled"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.gpu
def test_the_network_runs_on_a_gpu() -> None:
    clip = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    on_gpu = random_network().cuda()(clip.cuda())["pooled"].cpu()
    np.testing.assert_allclose(on_gpu, random_network()(clip)["pooled"], atol=1e-2)


def test_frames_are_those_of_the_original() -> None:
    spectrogram = SpeechEmbedding().spectrogram
    oracle = oracles.read("speech.npz")
    for name, clip in clips().items():
        found = spectrogram(torch.from_numpy(padded(clip)[None].astype("f4")))[0]
        np.testing.assert_allclose(found, oracle[f"{name}/frames"], rtol=1e-4)


@pytest.mark.weights
@pytest.mark.timeout(300)
def test_embeddings_are_those_of_the_original(weights: Callable[[str], None]) -> None:
    weights("speech")
    network = load("speech")
    assert isinstance(network, SpeechEmbedding)
    oracle = oracles.read("speech.npz")
    for name, clip in clips().items():
        expected = oracle[f"{name}/embedded"]
        # relative to the largest value, about 60
        tolerance = 1e-4 * np.abs(expected).max()
        found = network.embed(torch.from_numpy(oracle[f"{name}/frames"][None]))[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
        pooled = network(torch.from_numpy(clip[None].astype("f4")))["pooled"][0]
        means, maxima = expected.mean(0), expected.max(0)
        np.testing.assert_allclose(pooled[:96], means, rtol=0, atol=tolerance)
        np.testing.assert_allclose(pooled[96:], maxima, rtol=0, atol=tolerance)
