"""The noise floor: what it is estimated from, and the trials that it cannot tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from pipelines.storage import Folder
from tests.tuner.answering import Study, all_splits, predictions
from tests.tuner.studies import Script, baseline, finished_study
from tuner.ledger.noise import like_the_best, like_the_best_in_words, noise
from tuner.ledger.summary import summarise
from tuner.report.page import write_report
from tuner.report.result import result_lines
from tuner.study.explain import explain
from tuner.tracking.projection import Projection


def searched(values: list[float], tracks: int = 60, **config: Any) -> Script:
    """A search after its baselines, ridge at 0.61 with an interval of 0.2."""
    script = Script()
    script.study()
    script.records[0]["config"]["search"].update({"trials": 8, **config})
    rows = [baseline("majority", 0.17), baseline("ridge_logmel", 0.61)]
    script.add("baselines", val_tracks=tracks, rows=rows)
    for number, value in enumerate(values):
        name = f"t{number}"
        script.trial(name, number)
        measured = {"val_f1_macro": value, "val_log_loss": 1 - value}
        script.add("epoch", trial_id=name, epoch=1, metrics=measured)
        best = {"epoch": 1, "metrics": measured}
        script.add("trial_end", trial_id=name, status="completed", epochs=1, best=best, error=None)
    return script


def test_before_the_search_the_best_baseline_tells_the_noise() -> None:
    found = noise(summarise(searched([]).records))
    assert found is not None
    assert found.over_tracks == pytest.approx(0.2 / (2 * 1.959964))
    assert found.over_seeds is None
    # the expected maximum of eight normal variables, from tables of order statistics
    assert found.luck == pytest.approx(1.4236 * found.over_tracks, rel=0.01)
    assert "val_f1_macro near 0.61 on 60 validation tracks has a standard error of 0.051" in str(
        found
    )
    assert "the best of 8 equal trials would look up to 0.073 too good" in str(found)


def test_the_best_of_twenty_equal_trials_looks_as_lucky_as_in_a_simulation() -> None:
    found = noise(summarise(searched([], trials=20).records))
    assert found is not None
    drawn = np.random.default_rng(0).normal(size=(20_000, 20)).max(1).mean()
    assert found.luck == pytest.approx(drawn * found.over_tracks, rel=0.01)


def test_after_the_confirmation_its_interval_and_seeds_tell_the_noise() -> None:
    found = noise(summarise(finished_study()))
    assert found is not None
    assert (found.score, found.tracks, found.trials) == (0.79, 60, 3)
    assert found.over_tracks == pytest.approx(0.18 / (2 * norm.ppf(0.975)))
    assert found.over_seeds == pytest.approx(np.std([0.78, 0.81], ddof=1))


def test_a_loss_has_no_noise_floor() -> None:
    script = searched([0.5, 0.6])
    script.records[0]["config"]["search"].update({"metric": "val_log_loss", "mode": "min"})
    summary = summarise(script.records)
    assert noise(summary) is None
    assert like_the_best(summary) == {}
    assert like_the_best_in_words(summary) == ""


def test_trials_within_the_exact_interval_of_the_best_score_are_like_it() -> None:
    bar = binomtest(54, 60).proportion_ci(0.95, method="exact").low  # of 0.9: 0.795
    summary = summarise(searched([0.5, bar + 0.001, 0.9, bar - 0.001]).records)
    assert like_the_best(summary) == {"t1": "interval"}
    assert like_the_best_in_words(summary) == (
        "1 of the 3 other trials cannot be told apart from the best"
    )


def test_where_predictions_were_kept_the_same_tracks_tell_trials_apart(tmp_path: Path) -> None:
    truth = np.arange(90) % 3
    names = [f"val{i}" for i in range(90)]
    good, worse = (predictions(1, names, truth, sharp) for sharp in (1.0, 0.0001))
    study = Study(tmp_path, {})
    for record in searched([0.60, 0.55, 0.58], tracks=90).records:
        fields = {k: v for k, v in record.items() if k not in ("seq", "time_ms", "kind")}
        study.record(record["kind"], **fields)
    for trial_id, kept in (("t0", good), ("t1", good), ("t2", _blind(worse))):
        kept.write(study.paths.folder, trial_id, "val")
    explain(study)
    assert study.required("explained")["apart"] == {"t1": False, "t2": True}
    # By their scores alone, both would be like the best.
    assert like_the_best(summarise(list(study.ledger.records()))) == {"t1": "paired"}


def _blind(found: Any) -> Any:
    """Predictions that are always the first class."""
    k = found.probabilities.shape[1]
    found.probabilities[:] = np.eye(k)[0]
    return found


def test_the_noise_is_told_wherever_the_result_is(tmp_path: Path) -> None:
    summary = summarise(records := finished_study())
    study = Study(tmp_path / "s", {"t0": all_splits(1)})
    line = next(one for one in result_lines(summary, study.paths, None) if "noise" in one[:6])
    assert "standard error of 0.046, and 0.021 over seeds" in line
    # t0 has 0.734 and the best 0.826; t2 was stopped at 0.253
    assert line.endswith("1 of the 2 other trials cannot be told apart from the best")
    write_report(summary, Folder.at(tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert page.count("&asymp;</abbr>") == len(like_the_best(summary))
    assert "Noise floor: val_f1_macro near 0.79" in page
    runs = Projection()
    for record in records:
        runs.apply(record)
    assert runs.parent is not None
    measured = {name: value for name, value, *_ in runs.parent.metrics}
    assert measured["noise_over_tracks"] == pytest.approx(0.0459, abs=1e-4)
    assert measured["noise_over_seeds"] == pytest.approx(0.0212, abs=1e-4)
