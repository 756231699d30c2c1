"""Importance of the searched settings: how much worse their trials are predicted without each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tuner.ledger.summary import Summary

# Rules of thumb: with fewer, too few trials are left out to test what the others say.
FEWEST_TRIALS = 20
FEWEST_PER_SETTING = 2
MOST_TRIALS = 2000  # more, evenly spaced in the ranking, would say the same
RESAMPLES, TREES, SHUFFLES = 10, 20, 5


class Importance(NamedTuple):
    """Importance of one setting, in shares of the variance of the trials' ranks.

    Attributes:
        name: Dotted path.
        share: Median over resamplings of the trials.
        low: The tenth percentile over them.
        high: The ninetieth.
    """

    name: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Importances:
    """The settings of a search by importance, or the reason why there are none.

    Attributes:
        settings: The settings, the most important one first.
        explained: Share of the variance that is explained, on trials that were left out.
        reason: Why there are none; empty if there are.
    """

    settings: tuple[Importance, ...] = ()
    explained: float = 0.0
    reason: str = ""


def searched(study: Summary) -> list[str]:
    """Return the settings that took more than one value in the ranked trials, in their order."""
    names = dict.fromkeys(name for row in study.trials for name in row.read_params)
    read = [row.read_params for row in study.ranked]
    return [name for name in names if len({repr(one[name]) for one in read if name in one}) > 1]


def importances(study: Summary) -> Importances:
    """Measure importance by permutation in a random forest (Breiman, Random forests, 2001).

    The forest predicts the rank of a trial, so that a few failures do not decide everything. A
    setting is shuffled among the trials that were left out and have it. Forests of resampled
    trials give the uncertainty.
    """
    rows = study.ranked[:: -(-len(study.ranked) // MOST_TRIALS) or 1]
    names = searched(study)
    needed = max(FEWEST_TRIALS, FEWEST_PER_SETTING * len(names))
    if not names or len(rows) < needed:
        have = f"{len(rows)} trial{' has' if len(rows) == 1 else 's have'} a value"
        settings = f"{len(names)} setting{'' if len(names) == 1 else 's'}"
        asked = f"at least {needed} are needed for {settings}"
        same = "no setting differs between trials that have a value"
        return Importances(reason=f"{have}, {asked}" if names else same)
    features = np.column_stack(
        [_column([row.read_params.get(name) for row in rows]) for name in names]
    )
    has = np.array([[name in row.read_params for name in names] for row in rows])
    values = np.array([study.value(row) for row in rows])
    ranks = np.searchsorted(np.sort(values), values) / len(values)
    if not ranks.var():
        return Importances(reason="all trials reached the same value")
    found = _resampled(features, has, ranks)
    explained = float(np.median(found[:, -1]))
    if explained <= 0:
        return Importances(
            explained=explained,
            reason=f"{len(rows)} trials do not show which settings matter: a random forest "
            "predicts held-out trials no better than their mean does",
        )
    low, middle, high = np.percentile(found[:, :-1], [10, 50, 90], axis=0)
    listed = (Importance(*one) for one in zip(names, middle, low, high, strict=True))
    ordered = tuple(sorted(listed, key=lambda one: -one.share))
    return Importances(ordered, explained)


def _column(values: Sequence[Any]) -> NDArray[np.float64]:
    """Return one setting as numbers; where it is missing, as a common value that tells nothing."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, int | float) for value in known):
        filler = float(np.median(known))
        return np.array([filler if value is None else float(value) for value in values])
    codes = {text: code for code, text in enumerate(sorted({repr(value) for value in known}))}
    texts = [repr(value) for value in known]
    common = max(codes, key=texts.count)
    return np.array([float(codes[common if v is None else repr(v)]) for v in values])


def _resampled(
    features: NDArray[np.float64], has: NDArray[np.bool_], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the importance of ``p`` settings and the explained share ``[RESAMPLES, p + 1]``."""
    from sklearn.ensemble import RandomForestRegressor  # a second to import

    generator = np.random.default_rng(0)
    t, p = features.shape
    found = []
    for seed in range(RESAMPLES):
        drawn = generator.integers(t, size=t)
        left_out = np.setdiff1d(np.arange(t), drawn)
        forest = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=seed)
        forest.fit(features[drawn], target[drawn])
        # All shuffled copies are predicted together: [p * SHUFFLES + 1, l, p].
        copies = np.repeat(features[left_out][None], p * SHUFFLES + 1, axis=0)
        for number in range(p * SHUFFLES):
            column = number // SHUFFLES
            present = np.flatnonzero(has[left_out, column])
            mixed = generator.permutation(present)
            copies[number, present, column] = copies[number, mixed, column]
        predicted = forest.predict(copies.reshape(-1, p)).reshape(len(copies), -1)
        errors = ((predicted - target[left_out]) ** 2).mean(1)
        variance = ((target[left_out] - target[drawn].mean()) ** 2).mean()
        worse = (errors[:-1].reshape(p, SHUFFLES).mean(1) - errors[-1]) / variance
        found.append([*worse, 1 - errors[-1] / variance])
    return np.array(found)
