"""Files of weights that settings name: opened where they are used, told apart by content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pipelines.build.building import build_sets
from pipelines.build.decode import decode_here
from pipelines.build.options import BuildOptions, BuildResult
from pipelines.errors import SpecError
from pipelines.features import FeatureSpec
from pipelines.features.networks import NETWORKS
from pipelines.features.rules import check_front_end
from pipelines.settings import ClipSpec, SplitSpec
from pipelines.sources.catalog import read_catalog
from pipelines.store import open_feature_set
from tests.conftest import write_tones
from tests.pipelines.wheels import tiny_row, write_wheel

CLIP = ClipSpec(clip_seconds=0.2, clips_per_track=1)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of weights for the row ``tiny``, which takes 8 kHz."""
    row = tiny_row("tiny", write_wheel(tmp_path / "index"), sample_rate=8_000)
    monkeypatch.setitem(NETWORKS, "tiny", row)
    file = tmp_path / "mine+yours.safetensors"
    write(file, 1.0)
    return file


def write(file: Path, weight: float) -> None:
    tensors = {"linear.weight": torch.full((2, 3), weight)}
    safetensors.torch.save_file(tensors, file, {"network": "tiny"})


def spec(file: Path) -> FeatureSpec:
    settings = {"kind": "embedding", "network": [str(file)]}
    return FeatureSpec.model_validate(settings).at_rate_of_networks()


def build(data: Path, out: Path, feature: FeatureSpec, seed: int = 0) -> BuildResult:
    split, options = SplitSpec(seed=seed), BuildOptions(decode=decode_here)
    return build_sets(read_catalog(data), out, [(CLIP, feature)], split, options)[0]


def test_a_network_in_a_file_fixes_the_rate(mine: Path) -> None:
    assert spec(mine).sample_rate == 8_000
    check_front_end(CLIP, spec(mine))
    with pytest.raises(SpecError, match=r"sample_rate must be 8000 for .*got 22050"):
        check_front_end(
            CLIP, FeatureSpec.model_validate(dict(spec(mine)) | {"sample_rate": 22050})
        )


@pytest.mark.timeout(20)
def test_settings_of_a_stranger_open_no_file(mine: Path, tmp_path: Path) -> None:
    """Opening this pipe would wait forever."""
    data = write_tones(tmp_path / "data", per_class=4, seconds=0.3)
    built = build(data, tmp_path / "sets", spec(mine)).feature_set
    mine.unlink()
    os.mkfifo(mine)
    assert open_feature_set(built.folder).manifest == built.manifest
    FeatureSpec.model_validate({"kind": "embedding", "network": str(mine)})
    # The same data for another set, beside the stranger's.
    build(data, tmp_path / "sets", FeatureSpec(sample_rate=8_000, n_mels=8))


def test_another_content_under_the_same_path_is_another_set(mine: Path, tmp_path: Path) -> None:
    data, sets = write_tones(tmp_path / "data", per_class=4, seconds=0.3), tmp_path / "sets"
    first = build(data, sets, spec(mine))
    assert build(data, sets, spec(mine)).reused
    assert build(data, sets, spec(mine), seed=1).resumed_tracks == 12
    write(mine, 2.0)
    changed = build(data, sets, spec(mine))
    assert changed.feature_set.path != first.feature_set.path
    assert changed.resumed_tracks == 0
