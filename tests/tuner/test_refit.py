"""The final fit: what is trained again, what is tested then, and what happens when it fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tuner.answering import Study, all_splits
from tuner.config import Experiment, loads
from tuner.study import finish, refit
from tuner.trials.plan import Proposal
from tuner.trials.trial import TrialSpec

SPACE = "name: s\nmodel: {{name: cnn}}\ntrain: {{epochs: 5}}\nconfirm: {{refit: {refit}}}\n"


class Fitting(Study):
    """A study that keeps what it is asked to train; the run ends as told."""

    def __init__(
        self, folder: Path, wanted: str = "true", error: str | None = None, reached: float = 1.0
    ) -> None:
        super().__init__(folder, {"c0-1": all_splits(1), "refit-c0-1": all_splits(2)})
        self.space = loads(SPACE.format(refit=wanted))
        self.error, self.reached = error, reached
        self.trained: list[Proposal] = []
        self.said: list[str] = []
        self.progress = SimpleNamespace(status=self.said.append, say=self.said.append)
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

    def spec(self, trial_id: str, stage: str, seed: int, experiment: Experiment) -> TrialSpec:
        return TrialSpec(trial_id, stage, seed, experiment, "features")


@pytest.fixture
def run_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of Ray: the proposals end at once."""

    def run(study: Fitting, source, stage: str, count: int, budget: float | None) -> None:
        assert (stage, count, budget) == ("final", 1, None)
        while (proposal := source.next()) is not None:
            study.trained.append(proposal)
            spec = proposal.spec
            if not proposal.recorded:
                study.record(
                    "trial", trial_id=spec.trial_id, stage=spec.stage, ordinal=0, seed=spec.seed,
                    params=dict(proposal.params), config=spec.experiment.model_dump(mode="json"),
                    parent_trial=proposal.parent_trial,
                )  # fmt: skip
            status = "failed" if study.error else "completed"
            best = (
                None if study.error else {"epoch": 5, "metrics": {"val_f1_macro": study.reached}}
            )
            study.record(
                "trial_end", trial_id=spec.trial_id, status=status, epochs=5, best=best,
                error=study.error,
            )  # fmt: skip

    monkeypatch.setattr(refit, "run_stage", run)


def test_the_winner_is_trained_again_with_its_seed_to_the_last_epoch(
    tmp_path: Path, run_stage
) -> None:
    study = Fitting(tmp_path)
    refit.refit_winner(study)  # type: ignore[arg-type]
    (proposal,) = study.trained
    assert proposal.spec.stage == "final"
    assert proposal.spec.seed == 7
    assert proposal.parent_trial == "c0-1"
    assert proposal.spec.experiment.train.keep == "last"
    assert proposal.spec.experiment.train.epochs == 5
    assert refit.final_run(study).trial_id == "refit-c0-1"  # type: ignore[arg-type]
    finish.test_winner(study)  # type: ignore[arg-type]
    assert study.asked == [("refit-c0-1", "test")]
    refit.refit_winner(study)  # type: ignore[arg-type]
    assert len(study.trained) == 1, "a study that goes on trains it no second time"


def test_nobody_asked_nothing_is_trained(tmp_path: Path, run_stage) -> None:
    study = Fitting(tmp_path, "false")
    refit.refit_winner(study)  # type: ignore[arg-type]
    assert not study.trained
    assert refit.final_run(study).trial_id == "c0-1"  # type: ignore[arg-type]


def test_a_final_fit_that_fails_leaves_the_confirmed_winner(tmp_path: Path, run_stage) -> None:
    study = Fitting(tmp_path, error="the loss is not finite")
    refit.refit_winner(study)  # type: ignore[arg-type]
    assert refit.final_run(study).trial_id == "c0-1"  # type: ignore[arg-type]
    assert any("the loss is not finite" in text for text in study.said)
    # the next run of the study tries again, as long as the test tracks are not read
    study.error = None
    refit.refit_winner(study)  # type: ignore[arg-type]
    assert refit.final_run(study).trial_id == "refit-c0-1"  # type: ignore[arg-type]


def test_a_final_fit_that_knows_its_own_tracks_badly_is_not_taken(
    tmp_path: Path, run_stage
) -> None:
    study = Fitting(tmp_path, reached=0.5)
    refit.refit_winner(study)  # type: ignore[arg-type]
    assert refit.final_run(study).trial_id == "c0-1"  # type: ignore[arg-type]
    assert any("the winner stays" in text for text in study.said)


def test_after_the_test_nothing_is_trained_any_more(tmp_path: Path, run_stage) -> None:
    study = Fitting(tmp_path, error="no room")
    refit.refit_winner(study)  # type: ignore[arg-type]
    finish.test_winner(study)  # type: ignore[arg-type]
    refit.refit_winner(study)  # type: ignore[arg-type]
    assert len(study.trained) == 1
    assert study.asked == [("c0-1", "test")]


def test_one_that_was_cut_off_is_continued(tmp_path: Path, run_stage) -> None:
    study = Fitting(tmp_path)
    study.record(
        "trial", trial_id="refit-c0-1", stage="final", ordinal=0, seed=7, params={},
        config=study.rows()["c0-1"].recorded_config, parent_trial="c0-1",
    )  # fmt: skip
    refit.refit_winner(study)  # type: ignore[arg-type]
    (proposal,) = study.trained
    assert proposal.recorded
