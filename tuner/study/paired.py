"""Two confirmed configurations compared on the same tracks and seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tuner.errors import StudyError
from tuner.ledger.comparison import Comparison
from tuner.study.mixing import match_tracks
from tuner.training import metrics, uncertainty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from tuner.ledger.candidates import Candidate
    from tuner.study.context import Context
    from tuner.trials.predictions import Predictions

# Intervals over tracks exist for metrics that count tracks: by the soft vote, by the hard one.
TRACK_METRICS = {f"val_{name}": score for name, score in metrics.SCORES.items()}
HARD_METRICS = {
    "val_hard_accuracy": metrics.accuracy, "val_hard_f1_macro": metrics.f1_macro,
}  # fmt: skip


def compare_winner(
    study: Context, found: list[Candidate], confirmed: set[str], default: Candidate | None
) -> Iterator[Comparison]:
    """Compare the winner with the runner-up and the default configuration on validation.

    Args:
        study: The study.
        found: Configurations, the winner first.
        confirmed: Ids of those that were trained with all seeds.
        default: The default configuration; one comparison if it is the runner-up too.
    """
    winner, *rest = found
    runner_up = next((one for one in rest if one.trial_id in confirmed), None)
    roles = {one.trial_id: (one, of) for one, of in
             ((runner_up, "runner_up"), (default, "default")) if one}  # fmt: skip
    for other, of in roles.values():
        try:
            one = None if other.trial_id == winner.trial_id else compare(study, other, winner, of)
        except StudyError as error:  # the winner is known without it
            study.terminal.say(f"{other.trial_id} is not compared with the winner: {error}")
        else:
            yield from [one] if one else []


def compare(
    study: Context, other: Candidate, chosen: Candidate, of: str, split: str = "val"
) -> Comparison | None:
    """Compare two configurations over the seeds that both were trained with.

    Args:
        study: The study.
        other: What was not chosen.
        chosen: What was chosen.
        of: What the other one is; see `Comparison`.
        split: ``val`` or ``test``.

    Returns:
        The comparison; None without a common seed.

    Raises:
        StudyError: A trial cannot predict.
    """
    known, runs = {run.seed: run for run in other.runs}, list(chosen.runs)
    pairs = [(known[run.seed], run) for run in runs if run.seed in known]
    if not pairs:
        return None
    found = study.predictions(
        [run for column in zip(*pairs, strict=True) for run in column], split
    )
    half = len(pairs)
    measured = lead(study, found[:half], found[half:])
    return measured._replace(first=other.trial_id, split=split, of=of, seeds=half)


def lead(study: Context, before: list[Predictions], after: list[Predictions]) -> Comparison:
    """Return how far some predictions are above others, one by one, on the tracks that all know.

    Args:
        study: The study; its metric decides if it counts tracks, else macro F1.
        before: Predictions of one split, such as those of a configuration with ``s`` seeds.
        after: As many others.

    Raises:
        StudyError: They have no track in common.
    """
    by_metric: dict[str, Callable[[NDArray[np.int64]], float]] = TRACK_METRICS | HARD_METRICS
    name = study.metric if study.metric in by_metric else "val_f1_macro"
    score, s, found = by_metric[name], len(before), [*before, *after]
    votes = [one.hard if name in HARD_METRICS else one.probabilities for one in found]
    both = match_tracks([one.track_ids for one in found], [one.truth for one in found], votes)
    predicted, k = both.probabilities.argmax(2), len(study.labels())
    means = [
        float(np.mean([score(metrics.confusion(both.truth, one, k)) for one in half]))
        for half in (predicted[:s], predicted[s:])
    ]
    ends = uncertainty.paired_interval(both.truth, predicted[:s], predicted[s:], score, k)
    return Comparison(
        "", "val", means[0], means[1], ends, len(both.truth), metric=name.removeprefix("val_")
    )
