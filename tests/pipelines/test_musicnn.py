from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.errors import WeightsError
from pipelines.features.networks import store
from pipelines.features.networks.musicnn import Musicnn, build, convert
from tests.pipelines import oracles
from tests.pipelines.checkpoints import Block, Table, checkpoint, entries


@pytest.mark.weights
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", ["", "short/"], ids=["187 frames", "61 frames"])
@pytest.mark.parametrize(
    ("name", "original"), [("musicnn_msd", "MSD_musicnn"), ("musicnn_mtt", "MTT_musicnn")]
)
def test_activations_are_those_of_the_original(
    name: str, original: str, part: str, weights: Callable[[str], None]
) -> None:
    weights(name)
    arrays = oracles.read("musicnn.npz")
    frames = torch.from_numpy(arrays["frames"].astype("f4")).transpose(1, 2)
    core = store.load(name).get_submodule("core")
    layers = {k: v.numpy() for k, v in core(frames[:1, :, :61] if part else frames).items()}
    layers["penultimate"] = layers.pop("dense")
    pooled = layers.pop("pooled")
    layers["max_pool"], layers["mean_pool"] = pooled[:, 0::2], pooled[:, 1::2]
    for layer, found in layers.items():
        wanted = arrays[f"{original}/{part}{layer}"]
        # Relative to the layer's largest value: maxima reach 91, tags less than 0.5.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("num_frames", [1, 2, 63, 187, 300])
def test_any_number_of_frames_is_taken(num_frames: int) -> None:
    layers = Musicnn().eval()(torch.rand(2, 96, num_frames))
    assert layers["pooled"].shape == (2, 1506)
    assert all(layer.isfinite().all() for layer in layers.values())


def test_the_dense_layer_reads_maximum_and_mean_of_each_map_in_turn() -> None:
    net = Musicnn().eval()
    frames = torch.rand(2, 96, 50)
    maps = torch.cat(net.maps(frames), dim=1)
    pooled = net.pooled(frames)
    torch.testing.assert_close(pooled[:, 6], maps[:, 3].max(1).values)
    torch.testing.assert_close(pooled[:, 7], maps[:, 3].mean(1))
    layers = net(frames)
    assert torch.equal(layers["pooled"], pooled)
    assert torch.equal(layers["dense"], net.dense(pooled))


def test_the_stages_hold_all_weights_but_those_of_the_tags() -> None:
    net = Musicnn()
    stages = net.stages()
    assert len(stages) == 5
    staged = [p for stage in stages for module in stage for p in module.parameters()]
    tags = list(net.tags.parameters())
    assert {id(p) for p in (*staged, *tags)} == {id(p) for p in net.parameters()}
    assert len(staged) + len(tags) == len(list(net.parameters()))


def test_it_learns() -> None:
    torch.manual_seed(0)
    net, frames = Musicnn(num_tags=3), torch.rand(4, 96, 20)
    before = {name: values.clone() for name, values in net.state_dict().items()}
    loss = nn.functional.cross_entropy(net(frames)["tags"], torch.tensor([0, 1, 2, 0]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert not torch.equal(net.state_dict()["norm.running_mean"], before["norm.running_mean"])


def variables(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """A checkpoint with the names and shapes of the original's variables."""
    shapes = {
        0: (7, 38, 1, 204), 1: (7, 67, 1, 204), 2: (128, 1, 1, 51), 3: (64, 1, 1, 51),
        4: (32, 1, 1, 51), 5: (7, 561, 1, 64), 6: (7, 64, 1, 64), 7: (7, 64, 1, 64),
    }  # fmt: skip
    named: dict[str, np.ndarray | None] = {}
    for number, shape in shapes.items():
        layer = f"conv2d_{number}" if number else "conv2d"
        named |= {f"{layer}/kernel": np.zeros(shape), f"{layer}/bias": np.zeros(shape[-1])}
    for number, width in enumerate((1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200)):
        layer = f"batch_normalization_{number}" if number else "batch_normalization"
        for variable in ("gamma", "beta", "moving_mean", "moving_variance"):
            named[f"{layer}/{variable}"] = np.full(width, number)
    named |= {"dense/kernel": np.zeros((1506, 200)), "dense/bias": np.zeros(200)}
    named |= {"dense_1/kernel": np.zeros((200, 50)), "dense_1/bias": np.zeros(50)}
    named |= {"dense/bias/Adam": np.zeros(200), "beta1_power": np.ones(())}
    return {k: v for k, v in (named | changes).items() if v is not None}


def package(folder: Path, named: dict[str, np.ndarray]) -> Path:
    pairs, data = checkpoint(named)
    with zipfile.ZipFile(folder / "package.whl", "w") as content:
        content.writestr("net/.index", bytes(Table([Block(entries(pairs))])))
        content.writestr("net/.data-00000-of-00001", data)
    return folder / "package.whl"


@pytest.mark.timeout(120)
def test_layers_are_found_by_the_order_of_their_creation(tmp_path: Path) -> None:
    kernel = np.zeros((7, 38, 1, 204))
    kernel[5, 20, 0, 100] = 3.0  # frame, band, input, output
    middle = np.zeros((7, 561, 1, 64))
    middle[2, 400, 0, 60] = 4.0
    changed = variables(**{"conv2d/kernel": kernel, "conv2d_5/kernel": middle})
    network = build()
    network.load_state_dict(convert(package(tmp_path, changed), "net"))
    state = network.core.state_dict()
    assert state["timbral.0.conv.weight"][100, 0, 20, 5] == 3.0
    assert state["middle.0.conv.weight"][60, 400, 2] == 4.0
    assert state["temporal.0.norm.running_mean"].eq(3).all()
    assert state["middle.2.norm.bias"].eq(8).all()
    assert state["dense.norm_in.weight"].eq(9).all()
    assert state["dense.norm.running_var"].eq(10).all()


@pytest.mark.timeout(120)
def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    wheel = package(tmp_path, {"dense/kernel": np.zeros((2, 2))})
    with pytest.raises(WeightsError, match="net: the checkpoint has no variable conv2d/kern"):
        convert(wheel, "net")
    with pytest.raises(WeightsError, match=r"no checkpoint: .*other/\.index"):
        convert(wheel, "other")
    flat = {"conv2d/kernel": np.zeros(3), "conv2d/bias": np.zeros(3)}
    with pytest.raises(WeightsError, match=r"conv2d/kernel has the shape \[3\]"):
        convert(package(tmp_path, flat), "net")
