"""Every space file that is shipped, run as a whole study on a small demo dataset.

Trials are few and epochs short, so they show nothing about how well a model learns. They show
that every family trains with its own features, is confirmed, voted, registered, and predicts a
file.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.demo import write_demo
from tests.tuner.test_search_spaces import FILES
from tuner.trials.cluster import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

# Grouped by artist, 30 tracks of 30 artists.
NUM_TRACKS = 30
LABELS = 5
SHORT = (
    "train.epochs=2", "scheduler.grace_epochs=1", "confirm.top=2", "confirm.seeds=1",
    "confirm.default=false",
    "search.budget=null",
    "data.hop_seconds=null", "data.clips_per_track=1",
)  # fmt: skip
# One network of the three; a spectrogram of 26 frames instead of 259, and small batches, since
# the range test takes its number of steps; as many epochs with a frozen body as without.
IMAGES = ("data.clip_seconds=0.3", "train.batch_size=8", "train.freeze_epochs=1")
# By file, what is set besides `SHORT`, and the models that the two trials then have.
RUNS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    # The first two that random search draws are of two families, which take different features.
    "all": (
        ("search.algorithm=random", "search.seed=0", "search.start=[]"),
        {"wav2vec2", "convnext_atto"},
    ),
    "cnn": ((), {"cnn"}),
    "conv1d": ((), {"conv1d"}),
    "densenet": (IMAGES, {"densenet121"}),
    "edm_resnet": ((), {"resnet18"}),
    "edm_wav2vec2": ((), {"wav2vec2"}),
    # The grid's first two configurations, once these have one value: the forest and a CNN.
    "edmsorta": (
        ("features.n_mels=32", "optim.lr=1e-3", "train.batch_size=16"),
        {"forest", "cnn"},
    ),
    "efficientnet": (IMAGES, {"efficientnet_b3"}),
    "mel_resnet_ensemble": ((), {"resnet18"}),
    "quickstart": ((), {"cnn"}),
    # Two families again.
    "resnet": (
        ("features.n_mels=64", "search.algorithm=random", "search.seed=1"),
        {"resnet18", "cnn"},
    ),
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo"), NUM_TRACKS, workers=2)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


def _python(*words: str) -> str:
    """The last line that a module printed, once it has succeeded."""
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "NO_COLOR": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    ran = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, env=environment,
        timeout=500, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()[-1]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_runs_to_a_registered_model_that_answers(
    file: Path, demo: Path, storage: Path, local_ray: Cluster
) -> None:
    more, models = RUNS[file.stem]
    settings = [word for one in (*SHORT, *more) for word in ("--set", one)]
    found = json.loads(
        _python(
            "tuner.run", str(file), "--data", str(demo), "--storage", str(storage),
            "--address", local_ray.address, "--trials", "2", "--json", *settings,
            "--set", f"registry.model={file.stem}",
        )
    )  # fmt: skip
    assert found["status"] == "completed"
    assert (found["trials"]["total"], found["trials"]["failed"]) == (4, 0)
    assert found["leakage"]["passed"]
    assert math.isfinite(found["confirm"]["mean"])
    _check_test(found["test"])
    _check_ensembles(found["ensembles"], models)
    assert (found["registered"]["name"], str(found["registered"]["version"])) == (file.stem, "1")
    # One test track of each class shows nothing, so there is no champion.
    assert found["registered"]["alias"] is None

    track = next(path for path in sorted(demo.parent.rglob("*")) if path.suffix == ".flac")
    answer = json.loads(
        _python(
            "tuner.predict", f"models:/{file.stem}/1", str(track), "--storage",
            str(storage), "--json",
        )
    )  # fmt: skip
    assert answer["error"] is None
    assert len(answer["probabilities"]) == LABELS
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def _check_test(test: dict[str, Any]) -> None:
    assert 0 < test["tracks"] < NUM_TRACKS / 3
    assert len(test["classes"]) == LABELS
    assert 0 <= test["ci95"][0] <= test["f1_macro"] <= test["ci95"][1] <= 1
    assert 0 <= test["accuracy"] <= 1


def _check_ensembles(rows: list[dict[str, Any]], models: set[str]) -> None:
    """Soft and hard vote of the winner, the vote of both confirmed models, and their fusion."""
    assert [row["name"] for row in rows] == ["winner_soft", "winner_hard", "top_k", "fusion"]
    assert {one["model"] for row in rows for one in row["members"]} == models
    for row in rows:
        assert sum(one["weight"] for one in row["members"]) == pytest.approx(1)
        assert row["test"]["left_out"] == 0
        _check_scores(row["val"])
        _check_scores(row["test"])


def _check_scores(scores: dict[str, Any]) -> None:
    assert 0 < scores["tracks"] < NUM_TRACKS / 3
    assert 0 <= scores["f1_macro"] <= 1
