"""A search that was interrupted at any record ends as one that was not, without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.storage import Folder
from tests.tuner.answering import Study
from tuner.config import Space, loads
from tuner.errors import StudyError
from tuner.ledger.journal import Ledger
from tuner.ledger.states import State
from tuner.ledger.trial_rows import TrialRow
from tuner.study.extend import Request, extension
from tuner.study.stages import search_space
from tuner.trials.plan import Plan
from tuner.trials.recorder import Recorder

SPACE = """
name: s
model:
  choice:
    - {name: cnn, blocks: {integer: [2, 5]}, dropout: {quantized: [0.0, 0.6, 0.1]}}
    - {name: resnet18, drop_rate: {uniform: [0.0, 0.5]}}
    - {name: convnext_atto}
optim: {lr: {log_uniform: [1e-4, 1e-2]}}
train: {epochs: 4}
search: {trials: %d, seed: 3, start: [{model: resnet18}]}
scheduler: {name: %s, grace_epochs: 1, reduction_factor: 2}
"""


def space_of(trials: int = 8, scheduler: str = "asha_stopping", text: str = SPACE) -> Space:
    return loads(text % (trials, scheduler))


def measured(row: TrialRow, epoch: int) -> dict[str, Any]:
    """What a trial reports: any function of its settings; every fourth or so fails."""
    rng = np.random.default_rng(int(row.params["optim.lr"] * 1e9))
    if rng.random() < 0.25 and epoch == 3:
        return {"epoch": epoch, "error": "the loss is not finite", "val_f1_macro": 0.0}
    value = round(float(rng.random() + 0.1 * np.sqrt(epoch)), 3)
    return {"epoch": epoch, "val_f1_macro": value, "val_loss": 1 - value}


class Training(Study):
    """A study whose trials train by a formula.

    Args:
        space: Its space.
        at_once: Number of trials at once; which of them reports next is random.
        ahead: 1 if every checkpoint is an epoch ahead of the ledger when the study resumes.
        error: Why every trial fails.
    """

    def __init__(
        self,
        storage: Path,
        space: Space | None = None,
        at_once: int = 1,
        ahead: int = 0,
        error: str = "",
    ) -> None:
        super().__init__(storage, {}, space or space_of())
        self.error = error
        self.feature_paths = defaultdict(lambda: "features")
        self.at_once, self.started = at_once, list[str]()
        self.checkpoints = {
            name: len(row.history) + ahead for name, row in self.rows("search").items()
        }

    def run_trials(self, plan: Plan) -> None:
        """Do what Ray Tune does."""
        recorder, rng = Recorder(plan), np.random.default_rng(len(self.started))
        running: list[str] = []
        while True:
            while len(running) < self.at_once and (name := recorder.next_trial()) is not None:
                running.append(name)
                self.started.append(name)
            if not running:
                return
            name = running[int(rng.integers(len(running)))]
            row = self.rows()[name]
            if self.checkpoints.get(name):  # a trial first repeats the epoch of its checkpoint
                epoch = self.checkpoints.pop(name)
            else:
                epoch = len(row.history) + 1
            result = measured(row, epoch) | ({"error": self.error} if self.error else {})
            must_stop = recorder.report(name, result)
            if must_stop or epoch == 4 or "error" in result:
                recorder.end(name)
                running.remove(name)


def told(study: Study) -> list[dict[str, Any]]:
    """The records of a search, without what differs between two runs of it."""
    return [
        {key: value for key, value in record.items() if key not in ("seq", "time_ms")}
        for record in study.ledger.records()
        if record["kind"] not in ("searching", "study_end")
    ]


def cut(study: Study, folder: Path, num_records: int) -> Path:
    """Return the storage of a study whose driver died after some records."""
    ledger = Ledger(Folder(folder) / "studies" / "s")
    for record in list(study.ledger.records())[:num_records]:
        ledger.append(
            record["kind"], **{k: v for k, v in record.items() if k not in ("seq", "kind")}
        )
    ledger.end_lost_run()
    ledger.close()
    return folder


SCHEDULERS = ["asha", pytest.param("asha_stopping", marks=pytest.mark.slow)]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_search_cut_off_at_any_record_ends_like_one_that_was_not(
    scheduler: str, tmp_path: Path
) -> None:
    through = Training(tmp_path / "through", space_of(scheduler=scheduler))
    search_space(through)
    expected = told(through)
    assert any(one["kind"] == "promoted" for one in expected) == (scheduler == "asha")
    ends = [one["status"] for one in expected if one["kind"] == "trial_end"]
    assert {"completed", "stopped early", "failed"} <= set(ends), "each happens"
    assert len({row.model for row in through.rows().values()}) == 3
    for num_records in range(1, len(list(through.ledger.records()))):
        storage = cut(through, tmp_path / str(num_records), num_records)
        again = Training(storage, through.space, ahead=num_records % 2)
        decided = {one.trial_id for one in again.rows().values() if one.must_stop}
        known = len(list(again.ledger.records()))
        search_space(again)
        assert told(again) == expected, num_records
        new = list(again.ledger.records())[known:]
        decided -= {one["trial_id"] for one in new if one["kind"] == "promoted"}
        assert not decided & set(again.started), "a trial that was stopped has no process"


NARROW = SPACE.replace("seed: 3", "seed: 4")  # one of whose trials waits and goes on later
WIDE = NARROW.replace("[1e-4, 1e-2]", "[1e-4, 3e-2]")
CONCLUDED = ("confirming", "confirmed", "test", "registered")


def begin(study: Training) -> Training:
    study.record(
        "study", study="s", source=study.space.source, settings=study.space.settings(),
        config=study.space.template.model_dump(mode="json"), choices=[], remarks=[], data="d",
    )  # fmt: skip
    return study


def conclude(study: Training) -> None:
    """Write what follows a search, once; no test here reads what it says."""
    for kind in CONCLUDED:
        if study.ledger.last(kind) is None:
            study.record(kind)
    if study.ledger.state is not State.COMPLETED:
        study.record("study_end", status="completed")


def extend(study: Training, asked: str) -> None:
    """Do what the command with ``--extend`` does."""
    if fields := extension(Request.read(asked), study.space, list(study.ledger.records())):
        study.record("extended", **fields)
    search_space(study)
    conclude(study)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_an_extension_cut_off_at_any_record_ends_like_one_that_was_not(
    scheduler: str, tmp_path: Path
) -> None:
    """With a wider range, by the same command, also after its last record."""
    narrow, wide = (space_of(8, scheduler, text) for text in (NARROW, WIDE))
    through = begin(Training(tmp_path / "through", narrow))
    search_space(through)
    conclude(through)
    before = len(list(through.ledger.records()))
    through.space = wide
    extend(through, "4")
    expected, after = told(through), list(through.ledger.records())[before:]
    assert len(through.rows()) == 12
    old = [name for name, row in through.rows().items() if row.ordinal < 8]
    goes_on = {one["trial_id"] for one in after if one["kind"] == "promoted"}
    # A trial that had ended at a rung before the extension goes on in it, and only by promotion.
    assert bool(goes_on & {*old}) == (scheduler == "asha")
    for num_records in range(before, before + len(after) + 1):
        storage = cut(through, tmp_path / str(num_records), num_records)
        again = Training(storage, wide, ahead=num_records % 2)
        decided = {one.trial_id for one in again.rows().values() if one.must_stop}
        known = len(list(again.ledger.records()))
        extend(again, "4")
        assert told(again) == expected, num_records
        new = list(again.ledger.records())[known:]
        decided -= {one["trial_id"] for one in new if one["kind"] == "promoted"}
        assert not decided & set(again.started), "a trial that was stopped has no process"


REPLAY = """
import sys
from pipelines.storage import Folder
from tuner.config import loads
from tuner.ledger.journal import recorded
from tuner.ledger.trial_rows import TrialRows
from tuner.trials.samplers import propose
space, rows = loads(open(sys.argv[1]).read()), TrialRows()
for record in recorded(Folder.at(sys.argv[2])):
    if record["kind"] == "trial":
        one = propose(space, list(rows.values()))
        print(one.trial_id, one.trial_id == record["trial_id"], one.params == record["params"])
    rows.take(record)
"""


def test_each_proposal_of_a_ledger_follows_from_the_records_before_it(tmp_path: Path) -> None:
    """Three trials at once, in another process that orders sets in another way."""
    study = Training(tmp_path, space_of(14, "asha"), at_once=3)
    search_space(study)
    (tmp_path / "s.yaml").write_text(study.space.source)
    words = [sys.executable, "-c", REPLAY, str(tmp_path / "s.yaml"), str(study.paths.folder)]
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    out = subprocess.run(
        words, capture_output=True, text=True, check=True, timeout=60, env=environment
    ).stdout
    assert out.splitlines() == [f"{name} True True" for name in study.rows()]
    assert len(study.rows()) == 14


def test_if_every_trial_failed_the_next_run_tries_all_of_them_again(tmp_path: Path) -> None:
    study = Training(tmp_path, error="no driver for this GPU")
    with pytest.raises(StudyError, match=r"no trial succeeded.*no driver"):
        search_space(study)
    # A failure that is followed by an interruption is none of the machine.
    killed = cut(study, tmp_path / "killed", len(list(study.ledger.records())) - 4)
    again = Training(killed)
    search_space(again)
    assert again.started == list(again.rows())[-len(again.started) :]
    assert len(again.started) < 8
    study.record("study_end", status="failed", seconds={})
    names = list(study.rows())
    study = Training(tmp_path)
    search_space(study)
    assert study.started == names
    assert study.required("searched")["trials"] == 8
