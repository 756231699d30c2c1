"""Last stage: score what several models predict together, in comparison with the winner.

Nothing is selected here and nothing is registered. The winner is fixed before, and each model
predicts the test tracks once.

Notation: ``s`` models, ``t`` tracks, ``k`` classes; a prediction is a row of class probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.errors import StudyError
from tuner.ledger import selection
from tuner.ledger.summary import VOTES
from tuner.study.stages import winning_run
from tuner.training import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from tuner.ledger.selection import TrialRow
    from tuner.study.context import Context

ROUNDS = 50  # of greedy selection, so that weights are multiples of 0.02 or coarser
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
        if VOTES[name].metric:
            test = rows[-1]["test"]
            study.terminal.say(
                f"for comparison: {VOTES[name].title}, test macro F1 {test['f1_macro']:.3f}, "
                f"accuracy {test['accuracy']:.3f}"
            )
    study.record("ensemble", rows=rows, problems=problems)


def _compositions(study: Context) -> Iterator[tuple[str, list[TrialRow]]]:
    """Yield the name and the members of each vote."""
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
        families.setdefault(row.model, row)
    if len(families) > 1:
        yield "fusion", list(families.values())


def _row(study: Context, name: str, members: list[TrialRow]) -> dict[str, Any]:
    """Return the members, weights and scores of one vote."""
    vote = "hard" if name == "winner_hard" else "probabilities"
    matched = {split: _matched(study, members, split, vote) for split in SPLITS}
    weights = np.full(len(members), 1 / len(members))
    if name == "fusion":
        weights = select_weights(matched["val"].probabilities, matched["val"].truth)
    return {
        "name": name,
        "members": [
            {"trial_id": row.trial_id, "model": row.model, "weight": weight}
            for row, weight in zip(members, weights.tolist(), strict=True)
        ],
        **{split: _scores(tracks, weights, vote) for split, tracks in matched.items()},
    }


def _matched(study: Context, members: list[TrialRow], split: str, vote: str) -> Matched:
    found = study.predictions(members, split)
    return match_tracks(
        [one.track_ids for one in found],
        [one.truth for one in found],
        [getattr(one, vote) for one in found],
    )


def _scores(matched: Matched, weights: NDArray[np.float64], vote: str) -> dict[str, Any]:
    voted = soft_vote(matched.probabilities, weights)
    found: dict[str, Any] = metrics.scores_of(voted, matched.truth)
    if vote == "hard":
        del found["log_loss"]  # shares of a few clips are not probabilities
    predicted, k = voted.argmax(1), voted.shape[1]
    for key, metric in (("ci95", metrics.f1_macro), ("accuracy_ci95", metrics.accuracy)):
        found[key] = list(metrics.bootstrap_interval(matched.truth, predicted, metric, k))
    return {**found, "tracks": len(matched.truth), "left_out": matched.num_unknown}


# -- arithmetic


@dataclass(frozen=True)
class Matched:
    """Predictions of several models on the tracks that all of them know.

    Attributes:
        probabilities: Predictions ``[s, t, k]``.
        truth: Class of each track ``[t]``.
        track_ids: Tracks, ``t``.
        num_unknown: Number of tracks that at least one model does not know.
    """

    probabilities: NDArray[np.float64]
    truth: NDArray[np.int64]
    track_ids: tuple[str, ...]
    num_unknown: int


def match_tracks(
    track_ids: Sequence[Sequence[str]],
    truths: Sequence[NDArray[np.int64]],
    probabilities: Sequence[NDArray[np.float64]],
) -> Matched:
    """Align the predictions of models that list their tracks in different orders.

    Args:
        track_ids: Tracks of each model, in its own order.
        truths: Class of each of them.
        probabilities: Predictions of each model, ``[tracks of the model, k]``.

    Returns:
        The common tracks in the first model's order.

    Raises:
        StudyError: No track is known to all models, two models give a track different classes, or
            the models choose among different classes.
    """
    if len({one.shape[1] for one in probabilities}) > 1:
        raise StudyError("the models choose among different classes")
    places = [{name: i for i, name in enumerate(names)} for names in track_ids]
    known = set(places[0]).intersection(*places[1:])
    common = tuple(name for name in track_ids[0] if name in known)
    if not common:
        raise StudyError("no track is known to all models")
    rows = [np.array([place[name] for name in common]) for place in places]
    picked = [truth[at] for truth, at in zip(truths, rows, strict=True)]
    if any(not np.array_equal(one, picked[0]) for one in picked[1:]):
        raise StudyError("the models know a track by different classes")
    return Matched(
        probabilities=np.stack([p[at] for p, at in zip(probabilities, rows, strict=True)]),
        truth=picked[0],
        track_ids=common,
        num_unknown=len(set().union(*places)) - len(common),
    )


def soft_vote(
    probabilities: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean ``[t, k]`` of predictions ``[s, t, k]``, with weights ``[s]`` of sum 1."""
    return np.asarray(np.tensordot(weights, probabilities, axes=1))


def select_weights(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], rounds: int = ROUNDS
) -> NDArray[np.float64]:
    """Return weights ``[s]`` for which the mean of the models has a low log loss.

    Ensemble selection (Caruana, Niculescu-Mizil, Crew, Ksikes: Ensemble selection from libraries
    of models, ICML 2004): each round adds the model, possibly again, that gives the mean of all
    added so far the lowest loss; the round with the lowest loss is kept. The first round is the
    best single model, so the result is never worse than that.

    Args:
        probabilities: Predictions ``[s, t, k]`` on tracks that no model was trained on.
        truth: Class of each track ``[t]``, ``t`` at least 1.
        rounds: Largest number of models added; a weight is a share of the rounds kept.

    Returns:
        Shares that add up to 1.
    """
    of_truth = probabilities[:, np.arange(len(truth)), truth]  # [s, t], all that log loss reads
    added = np.zeros(len(of_truth))
    total = np.zeros(len(truth))
    lowest, weights = np.inf, np.full(len(added), 1 / len(added))
    for count in range(1, rounds + 1):
        means = np.maximum((total + of_truth) / count, metrics.SMALLEST)
        losses = -np.log(means).mean(1)
        chosen = int(losses.argmin())
        added[chosen] += 1
        total += of_truth[chosen]
        # Equal means differ by rounding; an earlier round has fewer models.
        if losses[chosen] < lowest - 1e-12:
            lowest, weights = losses[chosen], added / count
    return weights
