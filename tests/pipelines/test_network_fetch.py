from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.errors import WeightsError
from pipelines.features.networks.fetch import Wheel, fetched
from tests.pipelines.wheels import write_wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch) -> Path:
    """A folder that pip takes as its index."""
    folder = tmp_path / "index"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return folder


def refusal(wheel: Wheel) -> str:
    with pytest.raises(WeightsError) as caught, fetched(wheel):
        pass
    text = str(caught.value)
    assert "\n" not in text
    assert str(wheel) in text
    return text


def test_a_package_is_neither_installed_nor_kept(index: Path) -> None:
    with fetched(write_wheel(index)) as file:
        assert file.read_bytes() == (index / file.name).read_bytes()
    assert not file.exists()
    with pytest.raises(ModuleNotFoundError):
        __import__("tinynet")


def test_a_package_of_one_platform_is_fetched_on_any(index: Path) -> None:
    wheel = write_wheel(index)
    file = index / "tinynet-1.0-py3-none-any.whl"
    file.rename(index / "tinynet-1.0-py3-none-manylinux_2_35_x86_64.whl")
    with fetched(replace(wheel, platform="manylinux_2_35_x86_64")) as found:
        assert "manylinux" in found.name


def test_another_file_is_refused(index: Path) -> None:
    wheel = write_wheel(index)
    text = refusal(replace(wheel, sha256="0" * 64))
    assert "another file" in text
    assert wheel.sha256 in text
    assert "another file" in refusal(replace(wheel, num_bytes=wheel.num_bytes + 1))


def test_a_missing_package_is_named(index: Path) -> None:
    index.mkdir()
    assert "package nothere==1.0 cannot be fetched: pip says: No matching distribution" in refusal(
        Wheel("nothere", "1.0", "any", "0" * 64, 1)
    )


def test_an_index_that_is_not_reached_is_no_index_without_the_package(
    tmp_path: Path, monkeypatch
) -> None:
    nowhere = Wheel("nothere", "1.0", "any", "0" * 64, 1)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody answers there
    assert nowhere.obstacle() == "the package index was not reached"
    # An empty folder: reached, and without the package.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert nowhere.obstacle() == "the package index does not have nothere==1.0"
    assert write_wheel(tmp_path).obstacle() is None


def test_offline_nothing_is_fetched(index: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in refusal(write_wheel(index))


def test_pip_has_limited_time(index: Path) -> None:
    with pytest.raises(TimeoutError, match=r"more than 0\.01 s"):
        write_wheel(index).download(index, timeout_seconds=0.01)


def test_an_environment_without_pip_is_named(index: Path, tmp_path: Path, monkeypatch) -> None:
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-c", "pass"], check=True, timeout=30)
    monkeypatch.setattr(sys, "executable", str(python))
    assert "No module named pip" in refusal(write_wheel(index))
