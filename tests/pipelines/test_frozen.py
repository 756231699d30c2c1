from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipelines.features.networks import NETWORKS, store
from pipelines.features.networks.frozen import Frozen, build_frozen
from pipelines.features.networks.selection import num_rows

CHOICE = ["musicnn_mtt:tags", "vgg_mtt:pool1", "musicnn_mtt:cnn1"]


@pytest.mark.parametrize("num_samples", [1, 8_000, 60_000, 200_000])
def test_it_gives_one_column_of_all_rows(num_samples: int) -> None:
    frozen = build_frozen(CHOICE, with_weights=False)
    features = frozen(torch.randn(2, num_samples))
    assert features.shape == (2, num_rows(CHOICE), 1)
    assert not features.requires_grad


def test_rows_come_in_the_order_of_the_choice_and_a_network_runs_once() -> None:
    torch.manual_seed(0)
    frozen = build_frozen(CHOICE, with_weights=False)
    samples = torch.randn(3, 50_000)
    runs = []
    for network in frozen.networks:
        network.register_forward_hook(lambda *_: runs.append(1))
    features = frozen(samples)[:, :, 0]
    assert len(runs) == 2
    musicnn, vgg = (network(samples) for network in frozen.networks)
    wanted = torch.cat([musicnn["tags"], vgg["pool1"], musicnn["cnn1"]], dim=1)
    assert torch.equal(features, wanted)


def test_choices_that_share_a_network_run_it_once_on_the_same_samples() -> None:
    torch.manual_seed(0)
    network = NETWORKS["musicnn_mtt"].build().eval()
    runs = []
    network.register_forward_hook(lambda *_: runs.append(1))
    tags, both = (
        Frozen({"musicnn_mtt": network}, [(0, layer) for layer in layers])
        for layers in (("tags",), ("tags", "dense"))
    )
    with torch.inference_mode():
        for samples in torch.randn(2, 3, 50_000):
            assert torch.equal(tags.once(samples), tags(samples))
            assert torch.equal(both.once(samples), both(samples))
    assert len(runs) == 2 * (2 + 1)


def test_it_stays_frozen_in_a_module_that_trains() -> None:
    frozen = build_frozen(["musicnn_mtt"], with_weights=False)
    torch.nn.Sequential(frozen).train()
    assert not any(module.training for module in frozen.modules())
    assert not any(p.requires_grad for p in frozen.parameters())
    state = {k: v.clone() for k, v in frozen.state_dict().items()}
    frozen(torch.randn(2, 8_000))
    assert all(torch.equal(v, state[k]) for k, v in frozen.state_dict().items())


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "num_samples", [100, 16_000, pytest.param(120_000, marks=pytest.mark.slow)]
)
def test_it_is_exported_with_any_number_of_clips(num_samples: int) -> None:
    frozen = build_frozen(["musicnn_mtt", "vgg_mtt:tags"], with_weights=False)
    clips = torch.export.Dim("clips", min=1, max=64)
    exported = torch.export.export(
        frozen, (torch.randn(3, num_samples),), dynamic_shapes=({0: clips},)
    )
    for num_clips in (1, 5):
        samples = torch.randn(num_clips, num_samples)
        torch.testing.assert_close(exported.module()(samples), frozen(samples))


@pytest.mark.weights
@pytest.mark.timeout(300)
def test_published_weights_and_those_of_a_user_are_loaded(
    weights: Callable[[str], None], tmp_path: Path
) -> None:
    weights("musicnn_mtt")
    file = tmp_path / "mine.safetensors"
    file.write_bytes(store.weights_file(NETWORKS["musicnn_mtt"]).read_bytes())
    samples = torch.randn(1, 20_000)
    found = build_frozen([f"{file}:dense", "musicnn_mtt:dense"], with_weights=True)(samples)
    assert torch.equal(found[:, :200], found[:, 200:])
    assert not torch.equal(
        build_frozen(["musicnn_mtt:dense"], with_weights=False)(samples), found[:, :200]
    )


@pytest.mark.gpu
def test_it_gives_the_same_on_a_gpu() -> None:
    torch.manual_seed(0)
    frozen = build_frozen(CHOICE, with_weights=False)
    samples = torch.randn(2, 60_000)
    wanted = frozen(samples)
    found = frozen.to("cuda")(samples.to("cuda")).cpu()
    torch.testing.assert_close(found, wanted, atol=1e-2, rtol=1e-2)  # convolutions in TF32
