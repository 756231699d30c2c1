"""A trial whose state is in a bucket, against the same trial on a disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.errors import StorageAwayError
from pipelines.storage import Folder, mirror
from tests.object_store import BUCKET, Proxy, s3_server, variables
from tuner.config import loads
from tuner.training.checkpoint import best_weights, newest_checkpoint, newest_epoch
from tuner.training.feed import Alone
from tuner.trials.assembly import TrialSpec
from tuner.trials.predictions import predict_split
from tuner.trials.trial import train

CPU = Alone(torch.device("cpu"))
SPACE = """
name: bucket
model: {name: cnn, blocks: 2, channels: 4}
optim: {name: adamw, lr: 0.01}
train: {epochs: 6, batch_size: 8, precision: fp32}
"""
CHECKPOINTS = "trials/t0/checkpoints"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    proxy = Proxy(server)
    for name, value in variables(proxy.address).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    yield proxy
    proxy.close()


@pytest.fixture
def study(proxy: Proxy, request: pytest.FixtureRequest) -> Folder:
    port = proxy.address.rpartition(":")[2]
    options = f"endpoint_override=127.0.0.1:{port}&scheme=http"
    return Folder.at(f"s3://{BUCKET}/{request.node.name}?{options}")


def begun(study: Folder, features: str, recorded: int = 0) -> TrialSpec:
    spec = TrialSpec("t0", "search", 1, loads(SPACE).template, features, recorded)
    spec.write(study)
    return TrialSpec.read(study, "t0")


def whole(study: Folder, features: str) -> list[dict[str, Any]]:
    return list(train(study, begun(study, features), CPU))


def same_weights(one: Folder, other: Folder) -> bool:
    first, second = best_weights(one / CHECKPOINTS), best_weights(other / CHECKPOINTS)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def die(study: Folder) -> None:
    """Forget what this process was sending, as its death would."""
    sending = mirror._of_process.pop(study / CHECKPOINTS)
    sending._waiting.clear()


def test_it_learns_what_it_learns_on_a_disk(
    study: Folder, one_clip_features: str, tmp_path: Path
) -> None:
    reports = whole(Folder(tmp_path / "disk"), one_clip_features)
    assert whole(study, one_clip_features) == reports
    assert same_weights(study, Folder(tmp_path / "disk"))
    time.sleep(0.5)  # what is superseded goes a little later
    kept = (study / CHECKPOINTS).names()
    assert kept[-1] == "epoch-0006"
    assert len(kept) <= 4


def test_training_does_not_wait_for_the_store(
    study: Folder, proxy: Proxy, one_clip_features: str
) -> None:
    """Checkpoints that are superseded before their turn are not sent."""
    spec = begun(study, one_clip_features)
    proxy.delay_seconds = 0.2
    seconds = []
    for _ in train(study, spec, CPU):
        seconds.append(time.monotonic())
    assert np.diff(seconds)[:-1].max() < 0.6  # three requests in a row would take as long
    sent = {
        path.split("/")[-2]
        for verb, path in proxy.requests
        if path.endswith("weights.safetensors")
    }
    assert "epoch-0006" in sent
    assert len(sent) < 6


@pytest.mark.parametrize(
    "trouble", [503, *(pytest.param(one, marks=pytest.mark.slow) for one in (403, "reset"))]
)
def test_a_store_that_is_away_for_a_while_costs_no_epoch(
    study: Folder, proxy: Proxy, one_clip_features: str, trouble: int | str, tmp_path: Path
) -> None:
    reports, away = [], [0.0]
    for report in train(study, begun(study, one_clip_features), CPU):
        reports.append(report)
        if len(reports) == 2:
            away[0] = time.monotonic() + 3.0
            proxy.trouble = lambda *_: trouble if time.monotonic() < away[0] else None
    assert time.monotonic() > away[0]
    assert reports == whole(Folder(tmp_path / "disk"), one_clip_features)
    assert newest_epoch(study / CHECKPOINTS) == 6


def test_a_store_that_stays_away_is_an_error_and_nothing_is_lost(
    study: Folder, proxy: Proxy, one_clip_features: str, tmp_path: Path
) -> None:
    objects = study._objects  # type: ignore[attr-defined]
    patience, objects.patience_seconds = objects.patience_seconds, 1.0
    trained = train(study, begun(study, one_clip_features), CPU)
    reports = [next(trained), next(trained)]
    time.sleep(1.0)
    proxy.trouble = lambda *_: 503
    with pytest.raises(StorageAwayError, match="it asks for fewer requests"):
        reports.extend(trained)
    proxy.trouble, objects.patience_seconds = lambda *_: None, patience
    die(study)
    reports += list(train(study, TrialSpec.read(study, "t0"), CPU))
    disk = Folder(tmp_path / "disk")
    assert {one["epoch"]: one for one in reports} == {
        one["epoch"]: one for one in whole(disk, one_clip_features)
    }
    assert same_weights(study, disk)


def test_an_epoch_that_did_not_arrive_is_trained_again_where_it_is_needed(
    study: Folder, proxy: Proxy, one_clip_features: str, tmp_path: Path
) -> None:
    trained = train(study, begun(study, one_clip_features), CPU)
    for _ in range(2):
        next(trained)
    time.sleep(1.0)
    proxy.trouble = lambda *_: "reset"
    next(trained)
    die(study)
    del trained
    time.sleep(1.0)
    proxy.trouble = lambda *_: None
    assert newest_epoch(study / CHECKPOINTS) == 2
    found = predict_split(study, begun(study, one_clip_features, recorded=3), "val")
    assert newest_epoch(study / CHECKPOINTS) == 3

    disk = Folder(tmp_path / "disk")
    for report in train(disk, begun(disk, one_clip_features), CPU):
        if report["epoch"] == 3:
            break
    wanted = predict_split(disk, begun(disk, one_clip_features, recorded=3), "val")
    np.testing.assert_array_equal(found.probabilities, wanted.probabilities)
    newest = newest_checkpoint(study / CHECKPOINTS)
    assert newest is not None
    assert newest.epoch == 3
