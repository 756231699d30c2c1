from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from pydantic_core import PydanticCustomError

from pipelines.errors import SpecError, WeightsError
from pipelines.features.networks import NETWORKS, Provenance
from pipelines.features.networks.selection import (
    Selection,
    joined,
    num_rows,
    parse,
    parse_all,
    provenance,
    split,
)
from tests.pipelines.wheels import WEIGHT, tiny_row, write_wheel


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A file of weights whose path has a colon."""
    file = tmp_path / "a:b.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, file, {"network": "vgg_mtt"})
    return str(file)


def test_a_name_means_the_default_layers() -> None:
    row = NETWORKS["musicnn_msd"]
    assert parse("musicnn_msd") == Selection("musicnn_msd", row, row.default)
    assert parse("musicnn_msd:timbral") == Selection("musicnn_msd", row, ("timbral",))


def test_a_file_is_a_choice_too(mine: str) -> None:
    row = NETWORKS["vgg_mtt"]
    assert parse(mine) == Selection(mine, row, row.default)
    assert parse(f"{mine}:pool2") == Selection(mine, row, ("pool2",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("musicn_msd", "unknown network 'musicn_msd'; did you mean 'musicnn_msd'"),
        ("musicn_msd:dense", "unknown network 'musicn_msd'; did you mean"),
        ("", "a network has no name; write `NAME`"),
        (":", "a network has no name"),
        ("x" * 1_000_000, f"unknown network '{'x' * 57}...'; there are"),
        ("musicnn_msd:densee", "unknown layer of musicnn_msd 'densee'; did you mean 'dense'"),
        ("musicnn_msd:", "unknown layer of musicnn_msd ''; there are pooled, dense, tags, "),
        ("vgg_mtt:pool1:x", "unknown network 'vgg_mtt:pool1'"),
        ("weights.pth", "unknown network 'weights.pth'"),
    ],
)
def test_what_does_not_exist_is_named_with_a_suggestion(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert str(caught.value).startswith(message)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.safetensors: cannot be read: No such file.*y$"):
        parse(f"{tmp_path}/gone.safetensors:dense")
    with pytest.raises(WeightsError, match="null byte"):
        parse("a\0.safetensors")


def test_rows_add_up(mine: str) -> None:
    # 2 * 753 pooled maps and 200 units; 2 * 128 maps of a pool; 50 tags
    assert num_rows(["musicnn_msd:pooled", "musicnn_msd:dense"]) == 1706
    assert num_rows(["musicnn_msd:tags", "vgg_msd:pool1", f"{mine}:tags"]) == 50 + 256 + 50


def test_choices_that_cannot_be_joined_are_refused(tmp_path: Path, monkeypatch) -> None:
    slow = tiny_row("slow", write_wheel(tmp_path), sample_rate=8_000)
    monkeypatch.setitem(NETWORKS, "slow", slow)
    with pytest.raises(SpecError, match="one sample rate, got vgg_msd at 16000 Hz, slow at 8000"):
        parse_all(["vgg_msd", "slow"])
    with pytest.raises(SpecError, match="no network"):
        parse_all([])
    with pytest.raises(SpecError, match="vgg_msd:tags is chosen twice"):
        parse_all(["vgg_msd:tags", "vgg_mtt:tags", "vgg_msd:tags"])


def test_paths_are_made_absolute_for_workers_in_other_folders(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert joined(["speech", "a.safetensors"]) == f"speech + {tmp_path}/a.safetensors"
    assert joined("~/a.safetensors:pool2") == "/home/me/a.safetensors:pool2"
    assert joined("~nobody at all/a.safetensors").startswith(f"{tmp_path}/~nobody")
    assert joined("musicnn_msd:dense+speech") == "musicnn_msd:dense + speech"
    assert joined(3) == 3


def test_an_item_of_a_list_may_be_any_path(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["a+b.safetensors", "c + d.safetensors:pool2", "++.safetensors", "speech"]
    text = joined(names)
    assert split(text) == (*(f"{tmp_path}/{name}" for name in names[:3]), "speech")
    assert joined(text) == text  # as a ledger and a worker read it


def test_an_item_of_a_list_that_is_no_text_is_counted() -> None:
    with pytest.raises(PydanticCustomError, match=r"item 2 must be the name .* as in \[musicnn"):
        joined(["musicnn_msd", 3])


def test_the_training_data_of_a_file_is_not_guessed(mine: str) -> None:
    assert provenance("vgg_mtt:tags").trained_on.startswith("MagnaTagATune")
    unknown = Provenance(mine, "data that is not known here")
    assert provenance(f"{mine}:tags") == unknown
    Path(mine).write_bytes(b"damaged")
    assert provenance(mine) == unknown
    Path(mine).unlink()
    assert provenance(mine) == unknown


def test_a_published_network_is_recognised_by_its_content(tmp_path: Path, monkeypatch) -> None:
    """Whatever the file is called and says of itself."""
    overlaps = {"gtzan": "likely to share songs"}
    row = tiny_row("tiny", write_wheel(tmp_path), trained_on="songs", overlaps=overlaps)
    monkeypatch.setitem(NETWORKS, "tiny", row)
    file = tmp_path / "mine.safetensors"
    tensors = {"linear.weight": torch.tensor(WEIGHT)}
    safetensors.torch.save_file(tensors, file, {"network": "vgg_mtt", "trained_on": "nothing"})
    assert provenance(str(file)) == (f"{file} (tiny)", "songs", overlaps)
    safetensors.torch.save_file({"linear.weight": tensors["linear.weight"] + 1}, file)
    assert provenance(str(file)).overlaps == {}


@pytest.mark.timeout(5)
def test_a_text_with_very_many_networks_is_refused_at_once() -> None:
    with pytest.raises(SpecError, match="speech:pooled is chosen twice"):
        parse_all(["speech"] * 50_000)
