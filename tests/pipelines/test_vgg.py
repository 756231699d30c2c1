from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipelines.features.networks import store
from pipelines.features.networks.vgg import Vgg
from tests.pipelines import oracles


@pytest.mark.weights
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "original"), [("vgg_msd", "MSD_vgg"), ("vgg_mtt", "MTT_vgg")])
def test_activations_are_those_of_the_original(
    name: str, original: str, weights: Callable[[str], None]
) -> None:
    weights(name)
    arrays = oracles.read("musicnn.npz")
    core = store.load(name).get_submodule("core")
    layers = core(torch.from_numpy(arrays["frames"].astype("f4")).transpose(1, 2))
    for layer in ("tags", "pool1", "pool2", "pool3", "pool4", "pool5"):
        wanted = arrays[f"{original}/{layer}"]
        # Relative to the layer's largest value: those of the pools reach 95.
        atol = 1e-5 * np.abs(wanted).max()
        np.testing.assert_allclose(layers[layer].numpy(), wanted, rtol=0, atol=atol)


def test_each_pool_gives_means_and_maxima() -> None:
    torch.manual_seed(0)
    net, frames = Vgg().eval(), torch.rand(2, 96, 187)
    maps = torch.relu(net.convs[0](net.norm(frames[:, None])))
    maps = maps / (1 + 1e-3) ** 0.5  # the norm of an untrained network, with TensorFlow's epsilon
    # The first pool looks at every second band, and at four frames every two.
    halved = maps[:, :, ::2, :].unfold(3, 4, 2).amax(4)
    wanted = torch.cat([halved.mean((2, 3)), halved.amax((2, 3))], dim=1)
    torch.testing.assert_close(net(frames)["pool1"], wanted)
