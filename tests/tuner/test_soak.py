"""Ten thousand trials of no work: what a trial costs does not grow with their number."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.idle_trials import Idle, Projected, costs
from tuner.ledger.summary import summarise
from tuner.report.page import write_report

TRIALS = 10_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_last_thousand_trials_cost_what_the_first_did(tmp_path: Path) -> None:
    study = Idle(tmp_path, Projected(), algorithm="random", trials=TRIALS)
    study.search()
    seconds, mebibytes = costs(study.seconds), costs(study.mebibytes)
    assert len(study.rows("search")) == TRIALS
    assert seconds[-1] <= 1.5 * seconds[0]
    assert mebibytes[-1] <= 1.5 * mebibytes[0]
    assert study.mebibytes[-1] < 1536
    began = time.process_time()
    study.terminal.render()
    assert time.process_time() - began < 0.25, "the live table is drawn four times a second"
    began = time.process_time()
    write_report(summarise(list(study.ledger.records())), study.paths.folder)
    assert time.process_time() - began < 10, "5 s on an idle machine"
