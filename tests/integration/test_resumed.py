"""A study that was killed anywhere in its search has the result of one that was not."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_tones
from tests.integration.test_study import SPACE, Command, wait_for
from tuner.trials.cluster import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(500)]

# Both processors for each trial: one at a time.
ALONE = SPACE.replace("trials: 3", "trials: 5").replace("refit: true", "refit: false")
ALONE = ALONE.replace("epochs: 6", "epochs: 4") + "resources: {cpus_per_worker: 2}\n"
DECIDED = ("trial", "epoch", "trial_end", "searched", "confirmed", "calibrated", "test")


@pytest.fixture(scope="module")
def undisturbed(local_ray: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Command:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "small.yaml").write_text(ALONE)
    data = write_tones(folder / "tones")
    ran = Command(local_ray, folder / "small.yaml", data, folder / "results")
    code, _, err = ran.run()
    assert code == 0, err
    return ran


def result(ran: Command) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What a study decided and measured, in order, and the digests of the exported weights."""
    records = [
        {key: value for key, value in record.items() if key not in ("seq", "time_ms")}
        for record in ran.ledger()
        if record["kind"] in DECIDED
    ]
    model = ran.storage / "studies" / "small" / "model"
    digests = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(model.rglob("*.safetensors"))
    }
    assert digests
    return records, digests


def killed(undisturbed: Command, storage: Path, *moments: Callable[[Command], bool]) -> Command:
    """Run the study again, killed with its process group at each of these moments."""
    shutil.copytree(undisturbed.storage / "features", storage / "features")
    ran = replace(undisturbed, storage=storage)
    for moment in moments:
        process = ran.start()
        wait_for(lambda: moment(ran), process)  # noqa: B023
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    code, _, err = ran.run()
    assert code == 0, err
    return ran


def test_a_killed_study_has_the_result_of_one_that_was_not(
    undisturbed: Command, tmp_path: Path
) -> None:
    ran = killed(undisturbed, tmp_path, lambda ran: ran.num_records("epoch") == 6)
    assert sum(record["kind"] == "searching" for record in ran.ledger()) == 2
    assert result(ran) == result(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["trial", "epoch", "trial_end"])
def test_kills_at_other_moments_change_no_result(
    kind: str, undisturbed: Command, tmp_path: Path
) -> None:
    moments = [lambda ran, n=number: ran.num_records(kind) >= n for number in (1, 3, 5)]
    ran = killed(undisturbed, tmp_path, *moments)
    assert result(ran) == result(undisturbed)
