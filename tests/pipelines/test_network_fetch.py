from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.errors import WeightsError
from pipelines.features.networks import Wheel
from pipelines.features.networks.fetch import fetched
from tests.pipelines.wheels import write_wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch) -> Path:
    """A folder that pip takes as its index."""
    folder = tmp_path / "index"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return folder


def refusal(wheel: Wheel, **options) -> str:
    with pytest.raises(WeightsError) as caught, fetched(wheel, **options):
        pass
    text = str(caught.value)
    assert "\n" not in text
    assert str(wheel) in text
    return text


def test_a_package_is_opened_but_neither_installed_nor_kept(index: Path) -> None:
    with fetched(write_wheel(index)) as content:
        assert "weights.json" in content.namelist()
        kept = Path(str(content.filename))
        assert kept.is_file()
    assert not kept.exists()
    with pytest.raises(ModuleNotFoundError):
        __import__("tinynet")


def test_a_package_of_one_platform_is_fetched_on_any(index: Path) -> None:
    wheel = write_wheel(index)
    file = index / "tinynet-1.0-py3-none-any.whl"
    file.rename(index / "tinynet-1.0-py3-none-manylinux_2_35_x86_64.whl")
    with fetched(replace(wheel, platform="manylinux_2_35_x86_64")) as content:
        assert "weights.json" in content.namelist()


def test_another_file_is_refused(index: Path) -> None:
    wheel = write_wheel(index)
    text = refusal(replace(wheel, sha256="0" * 64))
    assert "another file" in text
    assert wheel.sha256 in text
    assert "another file" in refusal(replace(wheel, num_bytes=wheel.num_bytes + 1))


def test_a_missing_package_is_named(index: Path) -> None:
    index.mkdir()
    assert "pip cannot fetch nothere==1.0: No matching distribution" in refusal(
        Wheel("nothere", "1.0", "any", "0" * 64, 1)
    )


def test_offline_nothing_is_fetched(index: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in refusal(write_wheel(index))


def test_pip_has_limited_time(index: Path) -> None:
    assert "more than 0.01 s" in refusal(write_wheel(index), timeout_seconds=0.01)


def test_an_environment_without_pip_is_named(index: Path, tmp_path: Path, monkeypatch) -> None:
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-c", "pass"], check=True, timeout=30)
    monkeypatch.setattr(sys, "executable", str(python))
    assert "No module named pip" in refusal(write_wheel(index))
