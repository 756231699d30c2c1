"""The noise floor of a study's scores, and the trials that it cannot tell apart from the best."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

from tuner.ledger.selection import ONE_STANDARD_ERROR
from tuner.training import uncertainty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuner.ledger.baselines import Baseline
    from tuner.ledger.confirmation import Confirmation
    from tuner.ledger.selection import Ranking
    from tuner.ledger.summary import Summary
    from tuner.ledger.trial_rows import TrialRow

LEVEL = 0.95  # at which two trials are told apart
IN_95 = 2 * statistics.NormalDist().inv_cdf((1 + LEVEL) / 2)  # standard errors in an interval
INTERVALS = {"val_f1_macro": "ci95", "val_accuracy": "accuracy_ci95"}  # of the baselines


class Noise(NamedTuple):
    """How far scores of equally good trials lie apart.

    Attributes:
        metric: The study's metric.
        tracks: Number of validation tracks.
        score: Score at which it was estimated: the confirmed mean, or that of the best baseline.
        over_tracks: Standard error of one score over validation tracks.
        over_seeds: Standard deviation over seeds, pooled over what was confirmed; None before.
        trials: Number of trials that the search has, or may have.
    """

    metric: str
    tracks: int
    score: float
    over_tracks: float
    over_seeds: float | None
    trials: int

    @property
    def luck(self) -> float:
        """How much too good the best of so many equal trials looks, if their errors are apart.

        The expected maximum of normal variables (Blom, Statistical Estimates and Transformed
        Beta-Variables, 1958); trials that err on the same tracks have less.
        """
        if self.trials < 2:
            return 0.0
        place = (self.trials - 0.375) / (self.trials + 0.25)
        one = math.hypot(self.over_tracks, self.over_seeds or 0.0)
        return statistics.NormalDist().inv_cdf(place) * one

    def __str__(self) -> str:
        """Describe it in words."""
        seeds = "" if self.over_seeds is None else f", and {self.over_seeds:.3f} over seeds"
        most = (
            f"; the best of {self.trials} equal trials would look up to {self.luck:.3f} too good"
        )
        return (
            f"{self.metric} near {self.score:.2f} on {self.tracks} validation tracks has a "
            f"standard error of {self.over_tracks:.3f}{seeds}{most if self.trials > 1 else ''}"
        )


def noise(study: Summary) -> Noise | None:
    """Estimate the noise floor of a study; see `estimate`."""
    asked = 0 if study.confirm else study.config["search"].get("trials", 0)
    trials = asked or len(study.ranked)
    return estimate(study.ranking, trials, study.baselines, study.confirm)


def estimate(
    ranking: Ranking,
    trials: int,
    baselines: Sequence[Baseline],
    confirm: Confirmation | None = None,
) -> Noise | None:
    """Estimate the noise floor; None for a loss, and without a number of validation tracks.

    Args:
        ranking: Order of the trials.
        trials: Number of trials that the search has, or may have.
        baselines: Baselines, the best of which counts before the confirmation.
        confirm: The confirmation, if there has been one.
    """
    tracks, metric = ranking.num_tracks, ranking.metric
    known = [one for one in baselines if one.val]
    if not (tracks and ranking.maximise and (confirm or known)):
        return None
    ends: list[float] | None
    if confirm:
        score, ends = confirm.mean, confirm.ci95
    else:
        score, ends = max((_on_validation(one, metric) for one in known), key=lambda one: one[0])
    if ends is None:
        low, high = uncertainty.exact_interval(score, tracks, ONE_STANDARD_ERROR)
        error = (high - low) / 2
    else:
        error = (ends[1] - ends[0]) / IN_95
    confirmed = confirm.confirmed if confirm else []
    spreads = [statistics.variance(one["values"]) for one in confirmed if len(one["values"]) > 1]
    over_seeds = statistics.mean(spreads) ** 0.5 if spreads else None
    return Noise(metric, tracks, score, error, over_seeds, trials)


def _on_validation(one: Baseline, metric: str) -> tuple[float, list[float] | None]:
    assert one.val is not None
    name = metric if metric.removeprefix("val_") in one.val else "val_f1_macro"
    return one.val[name.removeprefix("val_")], one.val.get(INTERVALS.get(name, ""))


def whole_trials(study: Summary) -> list[TrialRow]:
    """Return the ranked trials but for those that lack some folds."""
    return [row for row in study.ranked if not row.is_partial]


def like_the_best(study: Summary) -> dict[str, str]:
    """Return the trials that cannot be told apart from the best one, and how that was judged.

    ``paired`` on the same validation tracks, where the predictions of both were kept; else
    ``interval``, if a trial's score is in the exact 95 % interval of the best one's. A loss has no
    such interval.
    """
    if not (whole := whole_trials(study)) or not study.ranking.num_tracks or not study.maximise:
        return {}
    first, *others = whole
    bar = study.ranking.bar(study.value(first), level=LEVEL)
    apart = study.explanation.apart
    judged = {
        row.trial_id: ("paired", not apart[row.trial_id])
        if row.trial_id in apart
        else ("interval", study.value(row) >= bar)
        for row in others
    }
    return {trial_id: how for trial_id, (how, is_like) in judged.items() if is_like}


def like_the_best_in_words(study: Summary) -> str:
    """Return how many trials cannot be told apart from the best; empty if that is unknown."""
    number, whole = len(like_the_best(study)), len(whole_trials(study))
    if whole < 2 or not study.ranking.num_tracks or not study.maximise:
        return ""
    other = "other trial" if whole == 2 else "other trials"
    return f"{number} of the {whole - 1} {other} cannot be told apart from the best"


def measured(study: Summary) -> dict[str, float | None]:
    """Return the noise floor as metrics of a study."""
    if (found := noise(study)) is None:
        return {}
    return {
        "noise_over_tracks": found.over_tracks, "noise_over_seeds": found.over_seeds,
        "trials_like_the_best": float(len(like_the_best(study))),
    }  # fmt: skip
