"""The baselines of a study: scored on validation before the search, and with its only test."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import UserError
from pipelines.storage import Folder, cache_folder
from tuner.errors import StudyError
from tuner.ledger.baselines import Baseline, baselines_in_words
from tuner.ledger.extension import EXTENDED
from tuner.ledger.noise import estimate
from tuner.study.mixing import match_tracks
from tuner.training import metrics, uncertainty
from tuner.training.arrays import Arrays, open_arrays
from tuner.training.baselines import predict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tuner.study.context import Context
    from tuner.trials.predictions import Predictions


SHOWN = ("f1_macro", "accuracy")


def score_baselines(study: Context) -> None:
    """Record what the baselines reach on the validation tracks, unless the study has done so."""
    if study.ledger.last("baselines"):
        return
    study.terminal.status("scoring the baselines")
    k = len(study.labels())
    rows = []
    for one, arrays in _opened(study):
        if arrays is not None:
            views = views_of(arrays)
            found = predict(one.name, views, "val")
            # The mean over the folds, as for trials; the interval is over all tracks.
            ends = np.cumsum([len(view.labels_of("val")) for view in views])[:-1]
            folds = zip(np.split(found.truth, ends), np.split(found.classes, ends), strict=True)
            counts = [metrics.confusion(truth, classes, k) for truth, classes in folds]
            means = {
                name: float(np.mean([metrics.SCORES[name](c) for c in counts])) for name in SHOWN
            }
            one = replace(one, val={**_scores(found.truth, found.classes, k), **means})
        rows.append(one)
    num_tracks = max((one.val["tracks"] for one in rows if one.val), default=None)
    study.record("baselines", val_tracks=num_tracks, rows=[one.to_json() for one in rows])
    study.terminal.say(f"baselines: {baselines_in_words(rows)}")
    if floor := estimate(study.ranking, study.space.num_trials, rows):
        study.terminal.say(f"noise floor: {floor}")


def compare_on_test(study: Context, found: Predictions, *, is_refit: bool) -> None:
    """Record what the baselines reach on the test tracks beside the tested model.

    Args:
        study: The study.
        found: The tested model's predictions of the test tracks.
        is_refit: True if it has learned from the validation tracks; then the baselines do too.
    """
    before = study.ledger.last("baselines")
    extended = study.ledger.last(EXTENDED) or {"seq": -1}
    if before is None or (
        any(row["test"] for row in before["rows"]) and before["seq"] > extended["seq"]
    ):
        return
    known = {one.name: one for one in Baseline.all_of(before)}
    rows = []
    for one, arrays in _opened(study):
        one = replace(one, val=known[one.name].val)
        if arrays is not None:
            learned = arrays.learning_from_validation() if is_refit else arrays
            one = replace(one, **_compared(one.name, learned, found))
        rows.append(one)
    study.record(
        "baselines", val_tracks=before["val_tracks"], rows=[one.to_json() for one in rows]
    )


def views_of(arrays: Arrays) -> list[Arrays]:
    """Return the splits that a trial learns from: one for each fold, or the only one."""
    folds = range(arrays.fold.max() + 1)
    return [arrays.of_fold(number) for number in folds] or [arrays]


def _opened(study: Context) -> Iterator[tuple[Baseline, Arrays | None]]:
    """Yield each baseline with its feature set; None if it is left out."""
    for name, key, reason in study.baseline_sources:
        arrays, left_out = None, reason
        try:
            if key is not None:
                found = open_arrays(
                    Folder.at(study.feature_paths[key]), cache_folder(),
                    is_streamed=key in study.streamed,
                )  # fmt: skip
                if list(found.labels) != study.labels():
                    raise StudyError("its feature set lacks classes of the study")
                arrays = found
        except (UserError, OSError) as error:
            left_out = str(error)
        network = key[1].network if key and name == "ridge_embedding" else ""
        yield Baseline(name, network, left_out), arrays


def _compared(name: str, arrays: Arrays, found: Predictions) -> dict[str, Any]:
    """Return a baseline's test scores, and its comparison with the tested model's predictions."""
    k = found.probabilities.shape[1]
    tested = predict(name, [arrays], "test")
    if set(tested.track_ids) != set(found.track_ids):
        return {"left_out": "its feature set has other test tracks, because some files differ"}
    both = match_tracks(
        [found.track_ids, tested.track_ids],
        [found.truth, tested.truth],
        [found.probabilities, np.eye(k)[tested.classes]],
    )
    predicted = both.probabilities.argmax(2)
    values = uncertainty.resampled(both.truth, predicted, metrics.f1_macro, k)
    return {
        "test": _scores(both.truth, predicted[1], k),
        "winner": metrics.f1_macro(metrics.confusion(both.truth, predicted[0], k)),
        "share_better": float((values[:, 1] > values[:, 0]).mean()),
    }


def _scores(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], num_labels: int
) -> dict[str, Any]:
    counts = metrics.confusion(truth, predicted, num_labels)
    return {
        **{name: metrics.SCORES[name](counts) for name in SHOWN},
        **uncertainty.intervals(truth, predicted, num_labels),
        "tracks": len(truth),
    }
