"""Last stage: score what several models predict together, in comparison with the winner.

Nothing is selected here and nothing is registered. The winner, or the fusion in its place, is
fixed before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.errors import StudyError
from tuner.ledger.summary import VOTES
from tuner.study.calibrate import temperature
from tuner.study.final import chosen, final_model, final_run
from tuner.study.fuse import confirmed_runs, matched, to_be_fused
from tuner.study.mixing import select_weights
from tuner.study.stages import winning_run
from tuner.training import metrics, uncertainty

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tuner.ledger.trial_rows import TrialRow
    from tuner.study.context import Context
    from tuner.study.mixing import Matched

SPLITS = ("val", "test")


def compare_ensembles(study: Context) -> None:
    """Record the scores of votes and fusions, unless the study has done so.

    If a vote is impossible, for example because the weights of a model are lost, it is skipped
    with the reason: the study has its winner without it.
    """
    if study.ledger.last("ensemble"):
        return
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for name, members in _compositions(study):
        study.terminal.status(f"scoring {VOTES[name].title}")
        try:
            rows.append(_row(study, name, members))
        except StudyError as error:
            problems.append(f"{VOTES[name].title}: {error}")
            continue
        if VOTES[name].metric and not (name == "fusion" and final_model(study).is_fusion):
            test = rows[-1]["test"]
            study.terminal.say(
                f"for comparison: {VOTES[name].title}, test macro F1 {test['f1_macro']:.3f}, "
                f"accuracy {test['accuracy']:.3f}"
            )
    study.record("ensemble", rows=rows, problems=problems)


def _compositions(study: Context) -> Iterator[tuple[str, list[TrialRow]]]:
    """Yield the name and the members of each vote.

    After a cross-validation only what was chosen has a model that can be tested.
    """
    winner, (fused, _) = winning_run(study), chosen(study)
    is_fused, has_folds = len(fused) > 1, bool(study.space.template.data.num_folds)
    if not (is_fused and has_folds):
        yield "winner_soft", [winner]
        yield "winner_hard", [winner]
    if not has_folds and len(confirmed := confirmed_runs(study)) > 1:
        yield "top_k", confirmed
    if not is_fused and not has_folds:
        fused = to_be_fused(study)
    if len(fused) > 1:
        yield "fusion", fused


def _row(study: Context, name: str, members: list[TrialRow]) -> dict[str, Any]:
    """Return the members, weights and scores of one vote."""
    vote = "hard" if name == "winner_hard" else "probabilities"
    tested = members
    if study.space.template.data.num_folds:
        tested = [final_run(study, row) for row in members]
    final = final_model(study)
    # The tested model as it is served; the others only serve as a comparison.
    is_tested = name != "top_k" and (name == "fusion") == final.is_fusion
    divisor = temperature(study) if is_tested else 1.0
    found = {
        split: matched(study, rows, split, vote, divisor)
        for split, rows in zip(SPLITS, (members, tested), strict=True)
    }
    weights = np.full(len(members), 1 / len(members))
    if name == "fusion":
        weights = (
            np.array(final.weights)
            if final.is_fusion
            else select_weights(found["val"].probabilities, found["val"].truth)
        )
    return {
        "name": name,
        "members": [
            {"trial_id": row.trial_id, "model": row.model, "weight": weight}
            for row, weight in zip(members, weights.tolist(), strict=True)
        ],
        **{split: _scores(tracks, weights, vote) for split, tracks in found.items()},
    }


def _scores(matched: Matched, weights: NDArray[np.float64], vote: str) -> dict[str, Any]:
    voted = metrics.weighted_mean(matched.probabilities, weights)
    found: dict[str, Any] = metrics.scores_of(voted, matched.truth)
    if vote == "hard":
        del found["log_loss"]  # shares of a few clips are not probabilities
    found |= uncertainty.intervals(matched.truth, voted.argmax(1), voted.shape[1])
    return {**found, "tracks": len(matched.truth), "left_out": matched.num_unknown}
