from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pipelines.errors import SpecError
from pipelines.features.networks import NETWORKS, named
from pipelines.sources.catalog import LAYOUTS


@pytest.mark.parametrize("name", NETWORKS)
def test_every_row_gives_the_layers_it_names(name: str) -> None:
    row = NETWORKS[name]
    assert row.name == name
    assert set(row.default) <= set(row.layers)
    module = row.build().eval()
    with torch.inference_mode():
        for num_samples in (1, 20_000):
            layers = module(torch.randn(2, num_samples))
            assert {k: (2, width) for k, width in row.layers.items()} == {
                k: tuple(layer.shape) for k, layer in layers.items()
            }


@pytest.mark.parametrize("name", NETWORKS)
def test_every_row_pins_its_source(name: str) -> None:
    row = NETWORKS[name]
    assert len(row.source.sha256) == len(row.digest) == 64
    assert row.source.num_bytes > 0
    assert row.licence
    assert row.trained_on
    assert set(row.overlaps) <= set(LAYOUTS)


def test_an_unknown_network_is_named_with_a_suggestion() -> None:
    with pytest.raises(SpecError, match=r"unknown network 'musicnn_mds'; did you mean 'musicnn_"):
        named("musicnn_mds")


def test_the_table_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from pipelines.features.networks.selection import num_rows; "
        "print(num_rows(['musicnn_msd', 'vgg_mtt:pool5']), "
        "sorted({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "1962 []\n"
