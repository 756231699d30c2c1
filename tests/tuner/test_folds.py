"""Cross-validation: folds of whole groups, trials that learn fold after fold, one final fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.settings import Split
from pipelines.splits.assign import fold_numbers
from pipelines.storage import Folder
from tests.conftest import build_here, write_tones
from tests.tuner.answering import Study
from tuner.config import loads
from tuner.errors import ConfigError, StudyError
from tuner.ledger.journal import Record
from tuner.study import stages
from tuner.training import checkpoint
from tuner.training.arrays import open_arrays
from tuner.training.feed import Alone
from tuner.trials import trial
from tuner.trials.assembly import TrialSpec
from tuner.trials.plan import Plan
from tuner.trials.predictions import predict_split
from tuner.trials.reserve import ANSWER_SECONDS

CPU = Alone(torch.device("cpu"))
FOLDS = 3
SPACE = f"""
name: folds
data: {{split: {{folds: {FOLDS}, test: 0.25}}}}
model: {{name: cnn, blocks: 2, channels: 4}}
train: {{epochs: 2, batch_size: 8, precision: fp32}}
"""


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> str:
    manifest = write_tones(tmp_path_factory.mktemp("data"), per_class=8, seconds=0.6)
    out = tmp_path_factory.mktemp("sets")
    return str(build_here(manifest, out, 1, n_mels=16, folds=FOLDS).feature_set.path)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))


def spec_of(features: str, stage: str = "search") -> TrialSpec:
    return TrialSpec("t0", stage, 1, loads(SPACE).template, features)


def test_folds_are_even_and_made_of_whole_groups() -> None:
    labels = [label for label in "ab" for _ in range(40)]
    groups = [f"{label}{number // 2}" for label in "ab" for number in range(40)]
    counts: dict[Split, int] = {"test": 8, "val": 8, "train": 24}
    splits = [split for _ in "ab" for split, count in counts.items() for _ in range(count)]
    folds = fold_numbers(labels, groups, splits, 4, seed=0)
    of_group: dict[str, int] = {}
    for group, fold in zip(groups, folds.tolist(), strict=True):
        assert of_group.setdefault(group, fold) == fold
    assert [split == "test" for split in splits] == (folds == -1).tolist()
    assert [split == "val" for split in splits] == (folds == 0).tolist()
    for label in "ab":
        sizes = np.bincount(folds[(np.array(labels) == label) & (folds >= 0)])
        assert sizes.tolist() == [8, 8, 8, 8]
    assert not np.array_equal(folds, fold_numbers(labels, groups, splits, 4, seed=1))


def test_each_track_outside_the_test_is_held_out_once(features: str, tmp_path: Path) -> None:
    arrays = open_arrays(Path(features), tmp_path)
    held_out: list[int] = []
    for number in range(FOLDS):
        fold = arrays.of_fold(number)
        train, val = (fold.splits[name].tracks.tolist() for name in ("train", "val"))
        assert sorted(train + val) == np.flatnonzero(arrays.fold >= 0).tolist()
        assert fold.splits["test"] is arrays.splits["test"]
        held_out += val
        learned = np.asarray(arrays.x[fold.splits["train"].clips], np.float64)
        np.testing.assert_allclose(fold.mean, learned.mean((0, 2)), rtol=1e-5)
        np.testing.assert_allclose(fold.std, learned.std((0, 2)), rtol=1e-5)
    assert sorted(held_out) == np.flatnonzero(arrays.fold >= 0).tolist()
    assert (arrays.fold[arrays.splits["test"].tracks] == -1).all()


def test_a_trial_reports_the_mean_over_its_folds(features: str, tmp_path: Path) -> None:
    study, spec = Folder(tmp_path / "study"), spec_of(features)
    reports = list(trial.train(study, spec, CPU))
    assert [report["epoch"] for report in reports] == [1, 2, 3]
    found = predict_split(study, spec, "val")
    arrays = open_arrays(Path(features), tmp_path / "cache")
    assert sorted(found.track_ids) == sorted(np.array(arrays.track_ids)[arrays.fold >= 0].tolist())
    fold_of = dict(zip(arrays.track_ids, arrays.fold.tolist(), strict=True))
    folds = np.array([fold_of[name] for name in found.track_ids])
    right = found.predicted == found.truth
    accuracies = [right[folds == number].mean() for number in range(FOLDS)]
    for count, report in enumerate(reports, 1):
        assert report["val_accuracy"] == pytest.approx(np.mean(accuracies[:count]))


def test_a_trial_beyond_a_limit_of_its_costs_ends_before_its_first_fold(
    features: str, tmp_path: Path
) -> None:
    limit = loads(SPACE + "search: {at_most: {size_mb: 0.001}}\n").template
    (report,) = trial.train(Folder(tmp_path), replace(spec_of(features), experiment=limit), CPU)
    assert report["epoch"] == 0
    assert report["size_mb"] > 0.001


def test_a_trial_that_is_killed_within_a_fold_continues_there(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(trial.train(Folder(tmp_path / "whole"), spec_of(features), CPU))
    saved, save = 0, checkpoint.save_checkpoint

    def killed(folder: Folder, state: checkpoint.Checkpoint) -> None:
        nonlocal saved
        save(folder, state)
        saved += 1
        if saved == 3:  # of the first epoch of the second fold
            raise KeyboardInterrupt

    study, spec = Folder(tmp_path / "cut"), spec_of(features)
    monkeypatch.setattr(trial, "SECONDS_BETWEEN_SAVES", -1.0)
    monkeypatch.setattr(trial, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        list(trial.train(study, spec, CPU))
    assert list(trial.train(study, spec, CPU)) == whole
    assert saved == 2 * FOLDS


def test_a_short_fold_is_validated_and_saved_once(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[checkpoint.Checkpoint] = []
    save = checkpoint.save_checkpoint

    def noted(folder: Folder, state: checkpoint.Checkpoint) -> None:
        saved.append(state)
        save(folder, state)

    monkeypatch.setattr(trial, "save_checkpoint", noted)
    list(trial.train(Folder(tmp_path), spec_of(features), CPU))
    assert [state.epoch for state in saved] == [2] * FOLDS
    assert all(state.best["epoch"] == 2 for state in saved)


def test_the_final_fit_learns_from_all_folds_at_once(features: str, tmp_path: Path) -> None:
    parts = spec_of(features, "final").assemble(CPU, from_weights=True)
    learned = parts.arrays.splits["train"].tracks
    assert sorted(learned.tolist()) == np.flatnonzero(parts.arrays.fold >= 0).tolist()
    reports = trial.train(Folder(tmp_path), spec_of(features, "final"), CPU)
    assert [report["epoch"] for report in reports] == [1, 2]


def test_folds_go_with_a_column_that_names_the_test() -> None:
    text = "name: s\nmodel: {name: cnn}\ndata: {split: {column: fold, test: [5], folds: 4}}\n"
    split = loads(text).template.data.split_spec
    assert (split.column, split.test_values, split.folds) == ("fold", ("5",), 4)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("{folds: 1}", "2"),
        ("{folds: 5, by: clip}", "whole groups"),
        ("{column: fold, val: [4], folds: 4}", "`test` has no values"),
    ],
)
def test_impossible_folds_are_refused(split: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        loads(f"name: s\nmodel: {{name: cnn}}\ndata: {{split: {split}}}\n")


def test_settings_without_effect_on_folds_are_named() -> None:
    space = loads(SPACE + "scheduler: {grace_epochs: 3}\nconfirm: {refit: true}\n")
    assert {problem.path for problem in space.warnings} == {
        "scheduler.grace_epochs", "confirm.refit",
    }  # fmt: skip


class Racing(Study):
    """A cross-validated study that asks for a fusion, and notes what is to be confirmed."""

    def __init__(self, folder: Path, **others: list[float]) -> None:
        text = "name: s\nmodel: {name: linear}\ndata: {split: {folds: 5}}\n"
        super().__init__(folder, {}, loads(text + "confirm: {fuse: true, top: 1}\n"))
        self.asked_for: list[tuple[str | None, int]] = []
        self.record("baselines", val_tracks=100, rows=[])
        for ordinal, (model, means) in enumerate({"linear": [0.8] * 5, **others}.items()):
            config = self.space.template.model_dump(mode="json")
            name = f"t{ordinal}-{model}"
            self.record(
                "trial", trial_id=name, stage="search", ordinal=ordinal, seed=0, params={},
                config=config | {"model": {"name": model}}, parent_trial=None,
            )  # fmt: skip
            history = [{"val_f1_macro": mean, "val_log_loss": 1.0} for mean in means]
            for fold, measured in enumerate(history, start=1):
                self.record("epoch", trial_id=name, epoch=fold, metrics=measured)
            self.record(
                "trial_end", trial_id=name, epochs=len(means), error=None,
                status="completed" if len(means) == 5 else "stopped early",
                best={"epoch": len(means), "metrics": history[-1]},
            )  # fmt: skip

    def run_trials(self, plan: Plan) -> None:
        """Instead of Ray: note the proposals."""
        while (proposal := plan.proposer([])) is not None:
            self.asked_for.append((proposal.parent_trial, proposal.seed))


def test_a_family_that_is_far_behind_is_not_trained_again_for_a_fusion(tmp_path: Path) -> None:
    # binomtest(32, 40).proportion_ci(0.9545), after two folds of five: from 0.64
    others = {"cnn": [0.70, 0.70], "forest": [0.37], "resnet18": [0.63, 0.60]}
    study = Racing(tmp_path, **others, densenet121=[0.70, 0.70], resnet34=[0.70, 0.70])
    with pytest.raises(StudyError, match="no confirmation run succeeded"):
        stages.confirm_best(study)
    assert study.asked_for == [
        ("t0-linear", 1), ("t0-linear", 2), ("t0-linear", 3),
        # in an order that no process changes, the worst first
        ("t5-resnet34", 1), ("t4-densenet121", 1), ("t1-cnn", 1),
    ]  # fmt: skip


PACED = """
name: s
model: {{name: linear}}
data: {{split: {{folds: 5}}}}
search: {{budget: {}}}
confirm: {{fuse: true, top: 1}}
"""


class Paced(Racing):
    """A race whose ledger tells the time: a fold takes 0.2 s of a linear head, 10 s of a CNN."""

    def __init__(self, folder: Path, budget: str) -> None:
        self.now_ms = 0
        super().__init__(folder, cnn=[0.70])
        self.space = loads(PACED.format(budget))

    def record(self, kind: str, **fields: Any) -> Record:
        if kind == "epoch":
            self.now_ms += 10_000 if fields["trial_id"] == "t1-cnn" else 200
        if kind == "baselines":
            self.ledger.append("searching", time_ms=0)
        return self.ledger.append(kind, **fields, time_ms=self.now_ms)


# 1 s and 10 s of search; then three seeds of 5 x 0.2 s, one CNN of 5 x 10 s, and the answers.
ANSWERS = f"{53 + ANSWER_SECONDS:.0f} s"


@pytest.mark.parametrize(("budget", "fits"), [("null", True), ("2m", True), ("63s", False)])
def test_a_run_for_a_fusion_alone_must_fit_in_what_the_search_has_left(
    tmp_path: Path, budget: str, fits: bool
) -> None:
    study = Paced(tmp_path, budget)
    for _ in range(2):
        with pytest.raises(StudyError, match="no confirmation run succeeded"):
            stages.confirm_best(study)
        asked = [("t0-linear", 1), ("t0-linear", 2), ("t0-linear", 3)]
        assert study.asked_for == asked + ([("t1-cnn", 1)] if fits else [])
        decision = study.required("confirming")
        assert decision["for_fusion"] == (["t1-cnn"] if fits else [])
        if not fits:
            assert study.silent.said == [f"confirmation: {decision['left_out'][0]}"]
            assert decision["left_out"] == [
                "t1-cnn (cnn) is left out of the fusion: with its run over all folds the rest "
                f"would take about {ANSWERS}, and 52 s of search.budget are left"
            ]
        # Resumed, with a budget that would decide otherwise.
        study.asked_for, study.silent.said = [], []
        study.space = loads(PACED.format("1s" if fits else "1h"))
