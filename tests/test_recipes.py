"""The recipes of docs/architecture.md for a model and a feature kind, followed on a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_tree import ROOT

# What a copy needs to run, to be tested and to write its generated files.
FOLDERS = ("pipelines", "tuner", "search_spaces", "docs", "tests")
MOST_FILES = 4  # the aim of the recipes
GENERATED = {"search_spaces/space.schema.json": [], "docs/settings.md": ["page"]}

CRNN = '''
"""A convolutional recurrent network: convolutions over frequency, then a GRU over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pipelines.features import SPECTROGRAMS, Kind
from tuner.models.settings import ModelSettings

if TYPE_CHECKING:
    import torch
    from torch import nn


class Crnn(ModelSettings):
    """Convolutions over frequency and a GRU over time."""

    takes: ClassVar[tuple[Kind, ...]] = SPECTROGRAMS

    name: Literal["crnn"] = Field("crnn", description="Model name.")
    channels: int = Field(8, ge=1, le=512, description="Channels of the convolution.")
    width: int = Field(16, ge=1, le=1024, description="Width of the recurrent layer.")

    def build(self, num_labels: int, num_rows: int) -> nn.Module:
        """Build the network."""
        from torch import nn

        from tuner.models.layers import in_two_parts

        class LastState(nn.Module):
            def __init__(self, channels: int, width: int) -> None:
                super().__init__()
                self.gru = nn.GRU(channels, width, batch_first=True)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                states, _ = self.gru(x.amax(2).transpose(1, 2))
                return states[:, -1]

        convolution = nn.Conv2d(1, self.channels, 3, padding=1)
        body = nn.Sequential(convolution, nn.ReLU(), LastState(self.channels, self.width))
        return in_two_parts(body, nn.Sequential(nn.Linear(self.width, num_labels)))
'''.lstrip()

DELTA = '''
"""Change of a log-mel spectrogram from frame to frame."""

import torch


class Delta(torch.nn.Module):
    """float32[n, f, m] in dB to differences of neighbouring frames, the first one 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Subtract the frame before."""
        return torch.diff(x, dim=2, prepend=x[:, :, :1])
'''.lstrip()

DELTA_ROW = """
    "delta": FeatureKind(
        summary="change of a log-mel spectrogram",
        reads=_MEL,
        num_rows=lambda feature: feature.n_mels,
        rows="n_mels",
        head=_delta,
    ),
"""

DELTA_HEAD = """
def _delta(feature: FeatureSpec) -> torch.nn.Module:
    from pipelines.features.delta import Delta

    return Delta()


"""

USE_DELTA = """
import numpy as np, torch
from pipelines.features import FeatureSpec
from pipelines.features.extract import extract, front_end
from pipelines.settings import ClipSpec
from tuner.config import loads
feature = FeatureSpec(kind="delta", sample_rate=16000, n_mels=20, hop_length=256, n_fft=512)
rng = np.random.default_rng(0)
clip = ClipSpec(clip_seconds=0.5, clips_per_track=1)
samples = rng.normal(size=8000).astype(np.float32) / 10
host = extract(samples, clip, feature).features[0].astype(np.float32)
device = front_end(feature)(torch.from_numpy(samples)[None])[0].numpy()
assert host.shape == feature.shape(clip) == (20, 32), host.shape
assert np.abs(host - device).max() < 0.1 and not host[:, 0].any() and host[:, 1].any()
space = loads("{name: x, features: {kind: delta}, model: {name: cnn}}")
assert space.template.front_end.kind == "delta"
"""


def copied(folder: Path) -> Path:
    """Copy the code, without what tools leave in it."""
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.png")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name}: {old}"
    path.write_text(text.replace(old, new))


def run(copy: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, *words], cwd=copy, env=environment, capture_output=True, text=True,
        timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def generate(copy: Path) -> None:
    for name, words in GENERATED.items():
        (copy / name).write_text(run(copy, "-m", "tuner.config", *words))


def touched(copy: Path) -> set[str]:
    """Names of the files that a recipe has added or changed."""
    found = set()
    for path in (path for name in FOLDERS for path in (copy / name).rglob("*")):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        original = ROOT / path.relative_to(copy)
        if not original.is_file() or original.read_bytes() != path.read_bytes():
            found.add(path.relative_to(copy).as_posix())
    return found


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_model(tmp_path: Path) -> None:
    copy = copied(tmp_path)
    (copy / "tuner/models/crnn.py").write_text(CRNN)
    table = copy / "tuner/models/__init__.py"
    edit(
        table,
        "from tuner.models.forest",
        "from tuner.models.crnn import Crnn\nfrom tuner.models.forest",
    )
    edit(table, "    Cnn,\n", "    Cnn,\n    Crnn,\n")
    generate(copy)
    files = touched(copy)
    assert "crnn" in (copy / "docs/settings.md").read_text()
    assert '"crnn"' in (copy / "search_spaces/space.schema.json").read_text()
    assert len(files) <= MOST_FILES, files
    # The contract suite picks it up on its own.
    output = run(
        copy,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/tuner/test_models.py",
        "-k",
        "crnn",
    )
    assert " passed" in output


@pytest.mark.timeout(240)
def test_a_feature_kind(tmp_path: Path) -> None:
    copy = copied(tmp_path)
    (copy / "pipelines/features/delta.py").write_text(DELTA)
    table = copy / "pipelines/features/__init__.py"
    edit(table, 'Literal["logmel", ', 'Literal["logmel", "delta", ')
    edit(
        table,
        "KINDS: dict[Kind, FeatureKind] = {",
        "KINDS: dict[Kind, FeatureKind] = {" + DELTA_ROW.rstrip(),
    )
    edit(table, "def _tempogram(", DELTA_HEAD.lstrip() + "def _tempogram(")
    generate(copy)
    files = touched(copy)
    assert "delta" in (copy / "docs/settings.md").read_text()
    assert len(files) <= MOST_FILES, files
    run(copy, "-c", USE_DELTA)
