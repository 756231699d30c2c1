"""An extended study: what is superseded, what is kept, and which trials fit a changed space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tuner.answering import Study, all_splits
from tests.tuner.studies import finished_study
from tuner.config import Space, loads
from tuner.errors import UsageError
from tuner.ledger import selection
from tuner.ledger.extension import newest_of
from tuner.ledger.summary import summarise
from tuner.ledger.trial_rows import TrialRow
from tuner.study import finish, stages
from tuner.study.extend import Request, again_in_words, extension
from tuner.study.pace import measure_pace
from tuner.trials.fitting import fit
from tuner.trials.plan import Plan
from tuner.trials.samplers import as_proposal, draw_random

SPACE = """
name: s
model: {name: cnn, blocks: {integer: [2, 4]}, channels: 8}
optim: {lr: {log_uniform: [1e-3, 1e-2]}}
train: {epochs: 4}
search: {trials: 3, algorithm: random}
scheduler: {name: none}
confirm: {top: 1, seeds: 1}
"""


class Quick(Study):
    """A study whose trials end at once, with the depth of the network as their score."""

    def run_trials(self, plan: Plan) -> None:
        stage = "search" if plan.early_stopping else "confirm"
        while proposal := plan.proposer([*self.rows(stage).values()]):
            if proposal.trial_id not in self.rows():
                config = proposal.experiment.model_dump(mode="json")
                self.record(
                    "trial", trial_id=proposal.trial_id, stage=proposal.stage, seed=proposal.seed,
                    ordinal=proposal.ordinal, params=dict(proposal.params), config=config,
                    parent_trial=proposal.parent_trial,
                )  # fmt: skip
            value = proposal.experiment.model.blocks / 10  # type: ignore[attr-defined]
            best = {"epoch": 4, "metrics": {"val_f1_macro": value, "val_log_loss": 1 - value}}
            self.record(
                "trial_end", trial_id=proposal.trial_id, status="completed", epochs=4, best=best,
                error=None,
            )  # fmt: skip
            self.predicted[proposal.trial_id] = all_splits(proposal.ordinal)


def begun(folder: Path, text: str = SPACE) -> Quick:
    study = Quick(folder, {}, loads(text))
    study.record(
        "study", study="s", source=text, settings=study.space.settings(), choices=[], remarks=[],
        config=study.space.template.model_dump(mode="json"), data="d",
    )  # fmt: skip
    return study


def finish_up(study: Quick) -> None:
    stages.search_space(study)
    stages.confirm_best(study)
    finish.test_winner(study)
    study.record("study_end", status="completed")


def extend(study: Quick, asked: str, text: str | None = None) -> None:
    if text:
        study.space = loads(text)
    fields = extension(Request.read(asked), study.space, list(study.ledger.records()))
    assert fields is not None
    study.record("extended", **fields)


def search_trials(study: Quick) -> list[TrialRow]:
    return [*study.rows("search").values()]


def test_an_extension_supersedes_conclusions_and_keeps_what_they_were_drawn_from() -> None:
    records = finished_study()
    extended = {"kind": "extended", "seq": len(records), "time_ms": records[-1]["time_ms"],
                "asked": "8", "began": 4, "trials": 12, "limits": {}, "left_out": []}  # fmt: skip
    before, after = summarise(records), summarise([*records, extended])
    assert (before.status, after.status) == ("completed", "running")
    assert before.test
    assert (after.confirm, after.test, after.registered.version) == (None, None, None)
    assert (len(after.trials), len(after.repeats)) == (len(before.trials), len(before.repeats))
    kept = {"study", "features", "baselines", "extended", "study_end", "trial", "trial_end"}
    assert set(newest_of([*records, extended])) == kept | {"epoch"}


def test_a_finished_study_gets_more_trials_and_keeps_its_confirmation_and_its_test(
    tmp_path: Path,
) -> None:
    study = begun(tmp_path)
    finish_up(study)
    first = [row.params for row in search_trials(study)]
    extend(study, "2")
    finish_up(study)
    found = search_trials(study)
    assert [row.params for row in found[:3]] == first
    assert [row.ordinal for row in found] == [0, 1, 2, 3, 4]
    # Each configuration was trained once with the new seed, in whatever era it was among the best.
    confirmed = [row.parent_trial for row in study.rows("confirm").values()]
    assert len(confirmed) == len(set(confirmed))
    tests = [*study.ledger.records("test")]
    same = tests[0]["trial_id"] == tests[1]["trial_id"]
    assert [bool(one.get("kept")) for one in tests] == [False, same]
    assert [trial for trial, split in study.asked if split == "test"] == list(
        dict.fromkeys(one["trial_id"] for one in tests)
    )


def test_a_repeated_command_adds_nothing_whenever_it_was_killed(tmp_path: Path) -> None:
    def adds(words: str, text: str = SPACE) -> Any:
        return extension(Request.read(words), loads(text), list(study.ledger.records()))

    study = begun(tmp_path)
    finish_up(study)
    extend(study, "2")
    assert (adds("2"), adds("2@3")) == (None, None)
    assert adds("4")["trials"] == 5 + 4, "another one comes on top"
    finish_up(study)  # killed after its last record
    assert (adds("2"), adds("2@3")) == (None, None)
    said = again_in_words(Request.read("2"), list(study.ledger.records()))
    assert said.endswith("write --extend 2@5, which adds to the 5 trials that it has now")
    with pytest.raises(UsageError, match=r"the study has 5 trials; .* write --extend 2@5"):
        adds("2@4")
    assert adds("3")["trials"] == adds("3@5")["trials"] == 5 + 3
    deeper = SPACE.replace("{integer: [2, 4]}", "{integer: [2, 5]}")
    assert adds("2", deeper)["trials"] == 5 + 2, "what is asked for is not the same"
    extend(study, "2@5")
    assert adds("2@5") is None
    finish_up(study)
    assert adds("2@5") is None
    assert adds("2@7")["trials"] == 9


def test_a_new_winner_is_a_second_look_at_the_test_split_and_said(tmp_path: Path) -> None:
    study = begun(tmp_path)
    finish_up(study)
    deeper = SPACE.replace("{integer: [2, 4]}", "{integer: [2, 5]}").replace("top: 1", "top: 2")
    extend(study, "12", deeper)
    finish_up(study)
    first, second = study.ledger.records("test")
    assert first["trial_id"] != second["trial_id"]
    assert (first["look"], second["look"], second.get("kept")) == (1, 2, None)
    assert study.silent.said[-1].endswith("look 2 at the test split")
    # The winner stays, so nobody looks again.
    extend(study, "1")
    finish_up(study)
    assert study.required("test")["kept"]


def test_trials_that_do_not_fit_a_changed_space_stay_in_the_record_unranked(
    tmp_path: Path,
) -> None:
    study = begun(tmp_path)
    finish_up(study)
    rows = search_trials(study)
    narrow = SPACE.replace("{integer: [2, 4]}", "{integer: [2, 3]}")
    extend(study, "4", narrow)
    fits = {row.trial_id: row.params["model.blocks"] < 4 for row in rows}
    assert {False, True} == set(fits.values()), "choose another seed"
    ranked = selection.leaderboard(study.rows().values(), study.ranking)
    assert {row.trial_id for row in ranked} == {name for name, is_in in fits.items() if is_in}
    left = study.required("extended")["left_out"]
    assert [one["trial_id"] for one in left] == [name for name, is_in in fits.items() if not is_in]
    assert left[0]["reason"] == "model.blocks 4 is not in integer [2, 3]"
    finish_up(study)
    assert len(search_trials(study)) == 7
    winner = study.rows()[study.required("confirmed")["winner"]["trial_id"]]
    assert winner.params["model.blocks"] < 4


def sampled(text: str) -> tuple[Space, TrialRow]:
    space = loads(text)
    one = as_proposal(draw_random(space, (), 0), 0)
    config = one.experiment.model_dump(mode="json")
    return space, TrialRow("t0", "search", 0, 0, dict(one.params), config, None)


@pytest.mark.parametrize(
    ("old", "new", "params", "reason"),
    [
        ("epochs: 4", "epochs: 4", {"model.blocks", "optim.lr"}, ""),
        ("epochs: 4", "epochs: 8", {"model.blocks", "optim.lr"}, "train.epochs was 4, is 8"),
        ("channels: 8", "channels: {choice: [8, 16]}",
         {"model.blocks", "model.channels", "optim.lr"}, ""),
        ("channels: 8", "channels: {choice: [4, 16]}", {"model.blocks", "optim.lr"},
         "model.channels 8 is not in choice [4, 16]"),
        ("{log_uniform: [1e-3, 1e-2]}", "0.5", {"model.blocks"}, "optim.lr was"),
        ("{log_uniform: [1e-3, 1e-2]}", "{uniform: [0.0001, 1.0]}", {"model.blocks", "optim.lr"},
         ""),
        ("{name: cnn, blocks: {integer: [2, 4]}, channels: 8}",
         "{choice: [{name: cnn, blocks: {integer: [2, 4]}, channels: 8}, {name: resnet18}]}",
         {"model", "model.cnn.blocks", "optim.lr"}, None),
    ],
)  # fmt: skip
def test_a_trial_is_read_in_the_parameters_of_a_changed_space(
    old: str, new: str, params: set[str], reason: str | None
) -> None:
    _, row = sampled(SPACE)
    found = fit(loads(SPACE.replace(old, new)), row)
    if reason is None:  # a new alternative: the block is found by its name
        assert found.params["model"] == "cnn"
    else:
        assert set(found.params) == params
        assert found.reason.startswith(reason)
        assert bool(found.reason) == bool(reason)


def test_an_extension_by_time_counts_from_its_command_on(tmp_path: Path) -> None:
    study = begun(tmp_path)
    finish_up(study)
    fields: Any = extension(Request.read("20m"), study.space, list(study.ledger.records()))
    total, since = fields["limits"]["search.budget"]
    assert total - since == 1200
    assert fields["trials"] is None


def test_an_extension_is_not_measured_against_the_budget_of_its_study(
    tmp_path: Path,
) -> None:
    study = begun(tmp_path, SPACE.replace("algorithm: random", "algorithm: random, budget: 10m"))
    finish_up(study)
    extend(study, "2")
    measure_pace(study)  # would need a cluster
    assert study.ledger.last("pace") is None


def test_an_unfinished_study_just_gets_more(tmp_path: Path) -> None:
    text = SPACE.replace("algorithm: random", "algorithm: random, budget: 10m, max_epochs: 90")
    study = begun(tmp_path, text)
    records = list(study.ledger.records())
    more: Any = extension(Request.read("4"), study.space, records)
    assert more["trials"] == 3 + 4
    assert more["limits"] == {"search.budget": [600, 0], "search.max_epochs": [90, 0]}
    longer: Any = extension(Request.read("5m"), study.space, records)
    assert (longer["trials"], longer["limits"]["search.budget"]) == (3, [900, 0])


def test_a_space_without_other_configurations_cannot_be_extended(tmp_path: Path) -> None:
    finite = SPACE.replace("{log_uniform: [1e-3, 1e-2]}", "0.01")
    study = begun(tmp_path, finite)
    finish_up(study)
    with pytest.raises(UsageError, match="all 3 configurations of the space have been tried"):
        extend(study, "2")
