"""A study that was killed anywhere in its search has the result of one that was not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.conftest import write_tones
from tests.integration.test_study import SPACE, Command, wait_for
from tuner.trials.cluster import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def undisturbed(local_ray: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Command:
    folder = tmp_path_factory.mktemp("undisturbed")
    text = SPACE.replace("trials: 3", "trials: 5").replace("refit: true", "refit: false")
    (folder / "small.yaml").write_text(text)
    data = write_tones(folder / "tones")
    ran = Command(local_ray, folder / "small.yaml", data, folder / "results")
    code, _, err = ran.run()
    assert code == 0, err
    return ran


@pytest.mark.parametrize("kind", ["trial", "epoch", "trial_end"])
def test_kills_in_a_search_change_no_result(
    kind: str, undisturbed: Command, tmp_path: Path
) -> None:
    """The process group is killed three times, each time after a record of the kind."""
    ran = undisturbed.fresh(tmp_path)
    for number in (1, 3, 5):
        process = ran.start()
        wait_for(lambda: ran.num_records(kind) >= number, process)  # noqa: B023
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    code, _, err = ran.run()
    assert code == 0, err
    assert ran.result() == undisturbed.result()
