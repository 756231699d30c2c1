"""A new row of the table, with a file at an address: it needs no code anywhere else."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

from pipelines.build.building import build_sets
from pipelines.build.decode import decode_here
from pipelines.build.options import BuildOptions
from pipelines.errors import WeightsError
from pipelines.features.networks import NETWORKS, store
from pipelines.features.networks.fetch import Download
from pipelines.sources.catalog import read_catalog
from pipelines.weights import read_state_dict, read_weights
from tests.conftest import write_tones
from tests.pipelines.wheels import WEIGHT, tiny_row
from tests.serving import Server, serving

STATE = {"linear.weight": torch.tensor(WEIGHT)}


def as_pth() -> bytes:
    content = io.BytesIO()
    torch.save(STATE, content)
    return content.getvalue()


def as_safetensors() -> bytes:
    return safetensors.torch.save(STATE)


FORMS = {"pth": (as_pth, read_state_dict), "safetensors": (as_safetensors, read_weights)}


@pytest.fixture(params=["safetensors", pytest.param("pth", marks=pytest.mark.slow)])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A server of a file that the row ``tiny`` describes, and an empty cache."""
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    write, read = FORMS[request.param]
    content = write()
    with serving(content) as running:
        address = running.address(f"tiny.{request.param}")
        source = Download(address, hashlib.sha256(content).hexdigest(), len(content))
        monkeypatch.setitem(NETWORKS, "tiny", tiny_row("tiny", source, convert=read))
        yield running


def run(*words: str) -> str:
    from tuner.weights import main

    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return done.output


def plan(tmp_path: Path) -> str:
    from tuner.run import main

    space = tmp_path / "space.yaml"
    space.write_text("name: s\nfeatures: {network: tiny}\nmodel: {name: linear}\n")
    done = CliRunner().invoke(main, [str(space), "--dry-run"])
    assert done.exit_code == 0, done.output
    return done.output


def test_it_is_listed_fetched_planned_and_built(server: Server, tmp_path: Path) -> None:
    from tuner.config import loads

    address = str(NETWORKS["tiny"].source)
    assert f"trained on nothing; from {address}" in run()
    assert f"weights      tiny: to fetch from {address}, 0 MB" in plan(tmp_path)
    file = tmp_path / "cache" / "networks" / "tiny.safetensors"
    assert run("fetch", "tiny") == f"tiny  {file}\n"
    assert "tiny  (here, none)" in run()
    assert "weights      tiny: here" in plan(tmp_path)
    assert store.load("tiny").state_dict()["linear.weight"].tolist() == WEIGHT
    assert server.asked == 1

    tracks = write_tones(tmp_path / "tracks", per_class=8, seconds=0.2)
    space = "name: s\nfeatures: {network: 'tiny:peaks'}\nmodel: {name: linear}\n"
    one = loads(space).template
    assert one.pretrained[0].trained_on == "nothing"
    options = BuildOptions(decode=decode_here)
    (built,) = build_sets(
        read_catalog(tracks), tmp_path / "sets", [one.feature_set_key], one.data.split_spec,
        options,
    )  # fmt: skip
    assert built.feature_set.manifest.shape == (1, 1)
    assert built.feature_set.manifest.feature.sample_rate == 16_000


def refusal() -> str:
    with pytest.raises(WeightsError) as caught:
        store.load("tiny")
    first, second = str(caught.value).splitlines()
    assert first.startswith("tiny: its weights are not in ")
    assert second.startswith("Two remedies: run `python -m tuner.weights fetch tiny`")
    assert store.find(NETWORKS["tiny"]) is None
    return first


def test_offline_the_server_is_not_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert refusal().endswith(
        f"{NETWORKS['tiny'].source} cannot be fetched: HF_HUB_OFFLINE is set"
    )
    assert server.asked == 0


def cut(server: Server, _: Path) -> str:
    server.promised, server.content = len(server.content), server.content[:50]
    return "the connection broke after 50 of "


def shorter(server: Server, _: Path) -> str:
    server.content = server.content[:50]
    return "is another file than the known one: 50 bytes"


def endless(server: Server, _: Path) -> str:
    server.content += bytes(50_000_000)
    return "is another file than the known one"


def changed(server: Server, _: Path) -> str:
    server.content = server.content[:-1] + b"?"
    return hashlib.sha256(server.content).hexdigest()


def to_a_file(server: Server, folder: Path) -> str:
    """A redirection to a file of this machine, though it is the right one."""
    (folder / "right").write_bytes(server.content)
    server.redirect = f"file://{folder}/right"
    return "cannot be fetched: HTTP Error 302"


@pytest.mark.parametrize("fault", [cut, shorter, endless, changed, to_a_file])
def test_what_is_not_the_file_is_refused(
    server: Server, tmp_path: Path, fault: Callable[[Server, Path], str]
) -> None:
    wanted = fault(server, tmp_path)
    assert wanted in refusal()
    assert server.asked == 1


def test_a_proxy_of_the_environment_is_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving(server.content) as proxy:
        monkeypatch.setenv("http_proxy", proxy.address(""))
        assert store.load("tiny").state_dict()["linear.weight"].tolist() == WEIGHT
        assert (proxy.asked, server.asked) == (1, 0)


def test_a_pickle_with_more_than_weights_is_refused(tmp_path: Path) -> None:
    for number, state in enumerate(([torch.ones(1)], {"a": 3}, {1: torch.ones(1)})):
        file = tmp_path / f"{number}.pth"
        torch.save(state, file)
        with pytest.raises(WeightsError, match="something other than weights"):
            read_state_dict(file)
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        read_state_dict(tmp_path / "gone.pth")
