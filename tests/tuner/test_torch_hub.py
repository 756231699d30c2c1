"""State files of torch hub: fetched once, taken from the cache, and never run."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest
import torch

from pipelines.errors import WeightsError
from tests.serving import Server, serving
from tuner.models.weights import read_published

NAME = "some_model.pth"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("http_proxy", raising=False)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def serve():
    """Start servers that end with the test; each is returned with the address of its file."""
    with contextlib.ExitStack() as running:

        def start(content: bytes, promised: int | None = None) -> tuple[str, Server]:
            server = running.enter_context(serving(content, promised))
            return server.address(NAME), server

        yield start


def saved(state: object, tmp_path: Path) -> bytes:
    file = tmp_path / "saved"
    torch.save(state, file)
    return file.read_bytes()


STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.0, -1.0])}


def assert_is_the_state(read) -> None:
    assert set(read) == set(STATE)
    assert all(torch.equal(read[name], STATE[name]) for name in STATE)


def test_fetched_once_then_taken_from_the_cache(cache, serve, tmp_path, capfd) -> None:
    address, server = serve(saved(STATE, tmp_path))
    assert_is_the_state(read_published(address))
    assert_is_the_state(read_published(address))
    assert server.asked == 1
    assert [file.name for file in cache.iterdir()] == [NAME]
    assert capfd.readouterr().out == ""  # standard output belongs to --json


def test_a_file_put_into_the_cache_needs_no_network(cache, tmp_path) -> None:
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(saved(STATE, tmp_path))
    assert_is_the_state(read_published(f"http://127.0.0.1:9/models/{NAME}"))


def test_a_broken_connection_leaves_nothing_behind(cache, serve, tmp_path) -> None:
    content = saved(STATE, tmp_path)
    address, _ = serve(content[:100], promised=len(content))
    with pytest.raises(WeightsError, match=f"broke after 100 of {len(content):,} bytes"):
        read_published(address)
    assert list(cache.iterdir()) == []


def test_without_network_both_remedies_are_named(cache) -> None:
    with socket.socket() as unused:  # bound, but nobody listens: the connection is refused
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/models/{NAME}"
        with pytest.raises(WeightsError, match=r"weights: pretrained: .*refused") as caught:
            read_published(address)
    assert str(cache / NAME) in str(caught.value)
    assert "weights: FILE" in str(caught.value)


def test_a_silent_server_is_not_waited_for(cache) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/{NAME}"
        with pytest.raises(WeightsError, match="timed out"):
            read_published(address, timeout_seconds=0.2)


def test_a_cache_that_cannot_be_made_is_said(tmp_path, monkeypatch, serve) -> None:
    (tmp_path / "hub").write_text("a file where the folder should be")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    address, _ = serve(b"")
    with pytest.raises(WeightsError, match="weights: FILE"):
        read_published(address)


class Canary:
    """Object whose pickle makes a folder if its reader runs code from the pickle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_with_a_program_is_refused_and_not_run(cache, tmp_path) -> None:
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(saved({"a": Canary(tmp_path / "ran")}, tmp_path))
    with pytest.raises(WeightsError, match="not loaded; remove it"):
        read_published(f"http://127.0.0.1:9/{NAME}")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content", [b"", b"<html>Please log in</html>", b"PK\x03\x04", b"\x80\x02.", bytes(1000)]
)
def test_what_is_no_state_file_is_refused_with_its_path(cache, content) -> None:
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(content)
    with pytest.raises(WeightsError, match=NAME):
        read_published(f"http://127.0.0.1:9/{NAME}")


@pytest.mark.parametrize("state", [[torch.ones(2)], {"model": {"a": torch.ones(2)}}, {"a": 3}])
def test_more_than_a_flat_state_is_refused(cache, tmp_path, state) -> None:
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(saved(state, tmp_path))
    with pytest.raises(WeightsError, match="something other than weights"):
        read_published(f"http://127.0.0.1:9/{NAME}")


def test_every_cut_of_a_state_file_is_refused(cache, tmp_path) -> None:
    cache.mkdir(parents=True)
    content = saved(STATE, tmp_path)
    for length in range(0, len(content) - 1, 97):
        (cache / NAME).write_bytes(content[:length])
        with pytest.raises(WeightsError, match=NAME):
            read_published(f"http://127.0.0.1:9/{NAME}")


def test_offline_nothing_is_asked_for(cache, serve, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    address, server = serve(b"")
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set; put that file at"):
        read_published(address)
    assert server.asked == 0
