"""A study that goes on through the command line, on a real Ray: by trials, and by time."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_tones
from tests.integration.test_study import Command, wait_for
from tuner.trials.cluster import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

SPACE = """
name: small
data: {clip_seconds: 0.5, clips_per_track: 2, split: {train: 0.5, val: 0.25, test: 0.25}}
features: {sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 16}
model: {name: cnn, blocks: 2, channels: 4}
optim: {lr: {log_uniform: [1e-3, 1e-2]}}
train: {epochs: 4, batch_size: 8}
search: {trials: 3, seed: 1, max_epochs: 60, device_hours: 1}
scheduler: {name: asha, grace_epochs: 1, reduction_factor: 2}
confirm: {top: 1, seeds: 1}
resources: {cpus_per_worker: 1}
"""


def test_an_extension_adds_what_it_is_asked_for_once(local_ray: Cluster, tmp_path: Path) -> None:
    manifest = write_tones(tmp_path / "tones")
    (tmp_path / "small.yaml").write_text(SPACE)
    ran = Command(local_ray, tmp_path / "small.yaml", manifest, tmp_path / "results")

    def runs(*more: str) -> dict[str, Any]:
        code, out, err = ran.run(*more)
        assert code in (0, 3), err
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        assert found["status"] == "completed"
        return found

    def num_trials() -> int:
        return sum(r["kind"] == "trial" and r["stage"] == "search" for r in ran.ledger())

    runs()
    assert num_trials() == 3
    wider = ("--extend", "2", "--set", "optim.lr={log_uniform: [1e-3, 3e-2]}")
    process = ran.start(*wider)
    wait_for(lambda: num_trials() >= 4, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    runs(*wider)
    assert num_trials() == 5
    (extended,) = (r for r in ran.ledger() if r["kind"] == "extended")
    assert (extended["began"], extended["trials"], extended["left_out"]) == (3, 5, [])
    length = len(ran.ledger())
    runs(*wider)
    assert len(ran.ledger()) == length

    code, out, err = ran.run("--extend", "20s", *wider[2:])
    assert code in (0, 3), err
    assert "search: as many trials as the time holds, 5 of them done before, starting" in err
    assert json.loads(out.splitlines()[-1])["status"] == "completed"
    assert num_trials() > 5
    assert ran.ledger()[-1]["kind"] == "study_end"
    (ended,) = (r for r in ran.ledger()[length:] if r["kind"] == "budget_ended")
    assert ended["limit"] == "search.budget"
