"""After the last stage: what several trained models answer together, beside the single winner.

Nothing is chosen here and nothing is registered. The winner is fixed before, and each model
answers the test tracks once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.errors import StudyError
from tuner.ledger import selection
from tuner.study import ensemble
from tuner.study.predictions import answers_of
from tuner.study.refit import winning_run
from tuner.training import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tuner.ledger.selection import TrialRow
    from tuner.study.context import Context

SPLITS = ("val", "test")
IN_WORDS = {
    "winner_soft": "the winner, soft vote over clips",
    "winner_hard": "the winner, hard vote over clips",
    "top_k": "soft vote of the confirmed models",
    "fusion": "fusion of the best model of each family",
}


def compare_ensembles(study: Context) -> None:
    """Record the scores of votes and fusions, unless the study has done so.

    A vote that cannot be taken, as when the weights of one of its models are lost, is left out
    with the reason: the study has its winner without it.
    """
    if study.ledger.last("ensemble"):
        return
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for name, members in _compositions(study):
        study.progress.status(f"scoring {IN_WORDS[name]}")
        try:
            rows.append(_row(study, name, members))
        except StudyError as error:
            problems.append(f"{IN_WORDS[name]}: {error}")
            continue
        if name in ("top_k", "fusion"):
            test = rows[-1]["test"]
            study.progress.say(
                f"beside the winner: {IN_WORDS[name]}, test macro F1 {test['f1_macro']:.3f}, "
                f"accuracy {test['accuracy']:.3f}"
            )
    study.record("ensemble", rows=rows, problems=problems)


def _compositions(study: Context) -> Iterator[tuple[str, list[TrialRow]]]:
    """Name and members of each vote."""
    rows = study.rows()
    winner = winning_run(study)
    yield "winner_soft", [winner]
    yield "winner_hard", [winner]
    confirmed = [
        selection.best_run(candidate, study.metric, study.maximise)
        for candidate in selection.candidates(rows.values(), study.metric, study.maximise)
    ]
    if len(confirmed) > 1:
        yield "top_k", confirmed
    families: dict[str, TrialRow] = {}
    for row in (*confirmed, *selection.leaderboard(rows.values(), study.metric, study.maximise)):
        families.setdefault(row.experiment.model.name, row)
    if len(families) > 1:
        yield "fusion", list(families.values())


def _row(study: Context, name: str, members: list[TrialRow]) -> dict[str, Any]:
    """One vote's members, weights and scores."""
    vote = "hard" if name == "winner_hard" else "probabilities"
    val, test = (_matched(study, members, split, vote) for split in SPLITS)
    weights = (
        ensemble.select_weights(val.probabilities, val.truth)
        if name == "fusion"
        else np.full(len(members), 1 / len(members))
    )
    return {
        "name": name,
        "members": [
            {"trial_id": row.trial_id, "model": row.experiment.model.name, "weight": weight}
            for row, weight in zip(members, weights.tolist(), strict=True)
        ],
        **{
            split: _scores(matched, weights, vote)
            for split, matched in zip(SPLITS, (val, test), strict=True)
        },
    }


def _matched(study: Context, members: list[TrialRow], split: str, vote: str) -> ensemble.Matched:
    answers = answers_of(study, members, split)
    return ensemble.match_tracks(
        [one.track_ids for one in answers],
        [one.truth for one in answers],
        [getattr(one, vote) for one in answers],
    )


def _scores(matched: ensemble.Matched, weights: NDArray[np.float64], vote: str) -> dict[str, Any]:
    answers = ensemble.soft_vote(matched.probabilities, weights)
    found: dict[str, Any] = metrics.scores_of(answers, matched.truth)
    if vote == "hard":
        del found["log_loss"]  # shares of few clips are no probabilities
    predicted, k = answers.argmax(1), answers.shape[1]
    for key, metric in (("ci95", metrics.f1_macro), ("accuracy_ci95", metrics.accuracy)):
        found[key] = list(metrics.bootstrap_interval(matched.truth, predicted, metric, k))
    return {**found, "tracks": len(matched.truth), "left_out": matched.left_out}
