"""The final fit: what it trains, what is tested after it, and what happens if it fails."""

from __future__ import annotations

from pathlib import Path

from tests.tuner.answering import Study, all_splits
from tuner.config import loads
from tuner.study import final, finish
from tuner.trials.plan import Plan, Proposal

SPACE = "name: s\nmodel: {{name: cnn}}\ntrain: {{epochs: 5}}\nconfirm: {{refit: {refit}}}\n"


class Fitting(Study):
    """A study that notes what it is asked to train, and whose final fit ends as given."""

    def __init__(
        self, folder: Path, wanted: str = "true", error: str | None = None, reached: float = 1.0
    ) -> None:
        predicted = {"c0-1": all_splits(1), "refit-c0-1": all_splits(2)}
        super().__init__(folder, predicted, loads(SPACE.format(refit=wanted)))
        self.error, self.reached = error, reached
        self.trained: list[Proposal] = []
        config = self.space.template.model_dump(mode="json")
        for name, stage, of in (("t0", "search", None), ("c0-1", "confirm", "t0")):
            self.record(
                "trial", trial_id=name, stage=stage, ordinal=0, seed=7, params={"a": 1},
                config=config, parent_trial=of,
            )  # fmt: skip
            best = {"epoch": 1, "metrics": {"val_f1_macro": 0.8}}
            self.record(
                "trial_end", trial_id=name, status="completed", epochs=5, best=best, error=None
            )
        self.record("confirmed", winner={"trial_id": "t0", "run_trial_id": "c0-1"})

    def run_trials(self, plan: Plan) -> None:
        """Instead of Ray: the trials end at once."""
        assert plan.limits is None
        while (proposal := plan.proposer([])) is not None:
            assert proposal.stage == "final"
            self.trained.append(proposal)
            if proposal.trial_id not in self.rows():
                self.record(
                    "trial", trial_id=proposal.trial_id, stage="final", ordinal=0,
                    seed=proposal.seed, params=dict(proposal.params),
                    config=proposal.experiment.model_dump(mode="json"),
                    parent_trial=proposal.parent_trial,
                )  # fmt: skip
            best = {"epoch": 5, "metrics": {"val_f1_macro": self.reached}}
            self.record(
                "trial_end", trial_id=proposal.trial_id, epochs=5, error=self.error,
                status="failed" if self.error else "completed",
                best=None if self.error else best,
            )  # fmt: skip


def test_the_winner_is_trained_again_with_its_seed_to_the_last_epoch(tmp_path: Path) -> None:
    study = Fitting(tmp_path)
    final.fit_finally(study)
    (proposal,) = study.trained
    assert proposal.stage == "final"
    assert proposal.seed == 7
    assert proposal.parent_trial == "c0-1"
    assert proposal.experiment.train.keep == "last"
    assert proposal.experiment.train.epochs == 5
    assert final.final_model(study).trial_id == "refit-c0-1"
    finish.test_winner(study)
    assert study.asked == [("refit-c0-1", "test")]
    final.fit_finally(study)
    assert len(study.trained) == 1, "a study that goes on trains it no second time"


def test_without_refit_nothing_is_trained(tmp_path: Path) -> None:
    study = Fitting(tmp_path, "false")
    final.fit_finally(study)
    assert not study.trained
    assert final.final_model(study).trial_id == "c0-1"


def test_a_final_fit_that_the_limits_do_not_hold_is_left_out(tmp_path: Path) -> None:
    study = Fitting(tmp_path)
    study.record("confirming", final=False)
    final.fit_finally(study)
    assert not study.trained
    assert final.final_model(study).trial_id == "c0-1"


def test_a_final_fit_that_fails_leaves_the_confirmed_winner(tmp_path: Path) -> None:
    study = Fitting(tmp_path, error="the loss is not finite")
    final.fit_finally(study)
    assert final.final_model(study).trial_id == "c0-1"
    assert any("the loss is not finite" in text for text in study.silent.said)
    # the next run of the study tries again unless the test has been read
    study.error = None
    final.fit_finally(study)
    assert final.final_model(study).trial_id == "refit-c0-1"


def test_a_final_fit_that_predicts_its_own_tracks_badly_is_rejected(tmp_path: Path) -> None:
    study = Fitting(tmp_path, reached=0.5)
    final.fit_finally(study)
    assert final.final_model(study).trial_id == "c0-1"
    assert any("the winner stays" in text for text in study.silent.said)


def test_nothing_is_trained_after_the_test(tmp_path: Path) -> None:
    study = Fitting(tmp_path, error="no room")
    final.fit_finally(study)
    finish.test_winner(study)
    final.fit_finally(study)
    assert len(study.trained) == 1
    assert study.asked == [("c0-1", "test")]


def test_a_final_fit_that_was_cut_off_is_neither_tested_nor_final(tmp_path: Path) -> None:
    study = Fitting(tmp_path)
    study.record(
        "trial", trial_id="refit-c0-1", stage="final", ordinal=0, seed=7, params={},
        config=study.rows()["c0-1"].recorded_config, parent_trial="c0-1",
    )  # fmt: skip
    best = {"epoch": 3, "metrics": {"val_f1_macro": 1.0}}
    study.record(
        "trial_end", trial_id="refit-c0-1", status="stopped early", epochs=3, best=best, error=None
    )
    assert final.final_model(study).trial_id == "c0-1"
    final.fit_finally(study)
    assert [proposal.trial_id for proposal in study.trained] == ["refit-c0-1"]
    assert final.final_model(study).trial_id == "refit-c0-1"


def test_an_interrupted_final_fit_continues(tmp_path: Path) -> None:
    study = Fitting(tmp_path)
    study.record(
        "trial", trial_id="refit-c0-1", stage="final", ordinal=0, seed=7, params={},
        config=study.rows()["c0-1"].recorded_config, parent_trial="c0-1",
    )  # fmt: skip
    final.fit_finally(study)
    (proposal,) = study.trained
    assert proposal.trial_id == "refit-c0-1"
