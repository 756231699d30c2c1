"""Stage before the test: calibrate the probabilities of the model that will be tested."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tuner.errors import StudyError
from tuner.study import mixing
from tuner.study.final import chosen
from tuner.training import calibration, metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tuner.study.context import Context


def calibrate(study: Context) -> None:
    """Record the temperature of the model, unless the study has one or was tested without.

    It is fitted on the validation predictions of the trials that were chosen, with folds out of
    fold. A final fit has learned from these tracks, so it takes the temperature of its trial.
    """
    if study.ledger.last("calibrated") or study.ledger.last("test"):
        return
    study.terminal.status("calibrating the probabilities")
    try:
        found = _fit(study).to_json()
    except StudyError as error:  # a lost model, without which the tested one is whole
        found = {"temperature": 1.0, "reason": f"1: {error}"}
    study.record("calibrated", **found)
    study.terminal.say(f"calibration: temperature {found['reason']}")


def _fit(study: Context) -> calibration.Calibration:
    rows, weights = chosen(study)
    found = study.predictions(rows, "val")
    names, truths = [one.track_ids for one in found], [one.truth for one in found]

    def matched(temperature: float) -> mixing.Matched:
        votes = [one.at(temperature).probabilities for one in found]
        return mixing.match_tracks(names, truths, votes)

    def vote(temperature: float) -> NDArray[np.float64]:
        return np.asarray(metrics.weighted_mean(matched(temperature).probabilities, weights))

    return calibration.fit_temperature(vote, matched(1.0).truth)


def temperature(study: Context) -> float:
    """Return the temperature of the model that is tested; 1 in studies of earlier versions."""
    return float((study.ledger.last("calibrated") or {"temperature": 1.0})["temperature"])
