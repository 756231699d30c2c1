from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from pipelines.errors import WeightsError
from pipelines.weights import load_into, read_weights


def test_every_kind_of_misfit_is_named() -> None:
    first = nn.Linear(2, 3)
    module = nn.Sequential(first, nn.Linear(3, 4))
    before = first.weight.clone()
    given = {f"x{i}": torch.zeros(1) for i in range(6)}
    given |= {"0.weight": torch.zeros(3, 2), "0.bias": torch.zeros(3), "1.bias": torch.zeros(5)}
    with pytest.raises(WeightsError) as caught:
        load_into(module, given, "a file")
    assert str(caught.value) == (
        "a file: these are not its weights; missing: 1.weight; "
        "not part of it: x0, x1, x2, x3 and 2 more; of another shape: 1.bias [5] instead of [4]"
    )
    assert torch.equal(first.weight, before)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused(zipped, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"weights\.pth: this is a pickle"):
        read_weights(path)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.safetensors: .*No such file"):
        read_weights(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="directory"):
        read_weights(tmp_path)
    broken = tmp_path / "broken.safetensors"
    for content in (b"", b"hello", b"\x10\0\0\0\0\0\0\0{}"):
        broken.write_bytes(content)
        with pytest.raises(WeightsError, match=r"broken\.safetensors: not a safetensors file"):
            read_weights(broken)
    whole = safetensors.torch.save(nn.Linear(20, 20).state_dict())
    broken.write_bytes(whole[:-100])
    with pytest.raises(WeightsError, match="not a safetensors file"):
        read_weights(broken)


def test_a_header_that_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    # The file begins with the length of its header; one of 128 bytes begins as pickles do.
    path = tmp_path / "w.safetensors"
    name = "w" * 71
    safetensors.torch.save_file({name: torch.ones(2)}, path)
    assert path.read_bytes()[0] == 0x80
    assert read_weights(path)[name].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("value", "is_loaded"),
    [
        (torch.ones(2, 2, dtype=torch.float64), True),
        (torch.full((2, 2), 1e300, dtype=torch.float64), False),  # beyond float32
        (torch.ones(2, 2).to(torch.float8_e4m3fn), True),
    ],
)
def test_weights_of_other_types_must_be_finite_as_float32(value, is_loaded) -> None:
    module = nn.Linear(2, 2, bias=False)
    if is_loaded:
        load_into(module, {"weight": value}, "a file")
        assert torch.equal(module.weight, torch.ones(2, 2))
    else:
        with pytest.raises(WeightsError, match="not finite: weight"):
            load_into(module, {"weight": value}, "a file")
