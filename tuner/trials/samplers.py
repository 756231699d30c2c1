"""Samplers, which propose the trials of a search: one table of functions of the trials so far."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tuner.config.ranges import Options, Quantized
from tuner.trials.plan import Proposal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import optuna

    from tuner.config import Sample, Search, Space
    from tuner.config.ranges import Range
    from tuner.ledger.trial_rows import TrialRow

    Earlier: TypeAlias = Sequence[tuple[TrialRow, float]]


def as_proposal(sample: Sample, ordinal: int) -> Proposal:
    """Return a configuration as a trial of the search, at a position in it."""
    experiment = sample.experiment
    seed = experiment.search.seed
    # The id depends only on the trial's content, so a second proposal has the same id.
    identity = json.dumps([experiment.name, sample.params, seed, ordinal])
    digest = hashlib.blake2b(identity.encode(), digest_size=3).hexdigest()
    trial_id = f"t{ordinal:03d}-{digest}"
    return Proposal(trial_id, "search", seed, experiment, ordinal, sample.params)


def draw_random(
    space: Space, _trials: Sequence[TrialRow], ordinal: int, _earlier: Earlier = ()
) -> Sample:
    """Draw a configuration that depends only on the seed of the search and its ordinal.

    The first ones have the values of ``search.start``; only what those leave out is drawn.
    """
    rng = np.random.default_rng((space.template.search.seed, ordinal))
    given = dict(enumerate(space.start)).get(ordinal, {})
    return space.sample(lambda name, leaf: given[name] if name in given else leaf.sample(rng))


def pick_next(
    space: Space, _trials: Sequence[TrialRow], ordinal: int, _earlier: Earlier = ()
) -> Sample:
    """Return the next combination, in the order of the file."""
    return next(islice(space.enumerate_grid(), ordinal, None))


def distribution(leaf: Range) -> optuna.distributions.BaseDistribution:
    """Return Optuna's distribution of a range; both include their ends.

    A quantized range is searched by the index of its value: Optuna adds up steps in floating point
    and can miss a value by one unit in the last place.
    """
    from optuna import distributions as d

    if isinstance(leaf, Options):
        return d.CategoricalDistribution(leaf.arguments)
    if isinstance(leaf, Quantized):
        return d.IntDistribution(0, leaf.num_values - 1)
    if leaf.whole:
        return d.IntDistribution(int(leaf.low), int(leaf.high), log=leaf.log)
    return d.FloatDistribution(leaf.low, leaf.high, log=leaf.log)


def to_optuna(leaf: Range, value: Any) -> Any:
    """Convert a value of a range to the value that Optuna searches."""
    return round((value - leaf.low) / leaf.step) if isinstance(leaf, Quantized) else value


def from_optuna(leaf: Range, value: Any) -> Any:
    """Convert a value that Optuna suggests to a value of the range."""
    return leaf.values()[value] if isinstance(leaf, Quantized) else value


def draw_tpe(
    space: Space, trials: Sequence[TrialRow], ordinal: int, earlier: Earlier = ()
) -> Sample:
    """Draw with Optuna's tree-structured Parzen estimator, in a space defined by run.

    A conditional block is asked for its alternative first, then only for the ranges of that
    alternative, so the model of each part learns from the trials that had the part. Trials that
    run at the same time see each other (constant liar).

    The first trials are those of ``search.start``. The next ones take each alternative of the
    outermost conditional blocks that is still untried, in the order of the file. With random
    draws, one family in three would not be among the first ten trials of ten families, and TPE
    hardly proposes what it has never seen. While a trial of ``search.start`` is running, its
    family gets no other.
    """
    import optuna.distributions as d

    if ordinal < len(space.start):
        return draw_random(space, trials, ordinal)
    study = optuna_study(space, trials, ordinal, earlier)
    if first := _untried(space, trials) or _known_families(space, trials, ordinal):
        study.enqueue_trial(first)
    trial = study.ask()

    def choose(path: str, leaf: Range) -> Any:
        match distribution(leaf):
            case d.FloatDistribution(low=low, high=high, log=log):
                return trial.suggest_float(path, low, high, log=log)
            case d.IntDistribution(low=low, high=high, log=log):
                return from_optuna(leaf, trial.suggest_int(path, low, high, log=log))
            case d.CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(path, choices)
        raise TypeError(f"no suggestion for {leaf!r}")

    return space.sample(choose)


def optuna_study(
    space: Space, trials: Sequence[TrialRow], ordinal: int, earlier: Earlier = ()
) -> optuna.Study:
    """Return the trials of a search as Optuna knows them, for one draw.

    A trial that was stopped early counts with its best value. Trials of earlier studies come
    first, with values that place them among those of this one as they stood in their own study:
    its scores may be of other data.

    Args:
        space: Space to sample.
        trials: Trials of the search, in the order of the ledger.
        ordinal: Position of the trial that is to be drawn, which has a seed of its own.
        earlier: Trials of earlier studies, whose parameters fit the ranges, with their weights.
    """
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = space.template.search
    # Optuna's default of 10 random trials would be all of a short study.
    families = max((len(labels) for labels in space.alternatives.values()), default=0)
    with warnings.catch_warnings():
        # `group`, which models each alternative's parameters jointly, is experimental; the
        # version of Optuna is pinned.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=(search.seed + 1_000_003 * ordinal) % 2**32,
            multivariate=True, group=True, constant_liar=True,
            n_startup_trials=max(3, min(10, search.trials // 3), families),
        )  # fmt: skip
    study = optuna.create_study(
        direction="maximize" if search.mode == "max" else "minimize", sampler=sampler
    )
    ranges = space.ranges
    distributions = {name: distribution(leaf) for name, leaf in ranges.items()}
    values = [row.value(search.metric) for row in trials]
    known = [value for value in values if value is not None and math.isfinite(value)]
    told = [
        (row, place if not known else float(np.quantile(known, place)))
        for row, place in _best_of_earlier(earlier, search)
    ]
    for row, value in [*told, *zip(trials, values, strict=True)]:
        reached = value if value is not None and math.isfinite(value) else None
        ended = TrialState.FAIL if reached is None else TrialState.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(
                params={name: to_optuna(ranges[name], one) for name, one in row.params.items()},
                distributions={name: distributions[name] for name in row.params},
                value=reached,
                state=TrialState.RUNNING if row.is_unfinished else ended,
            )
        )
    return study


def _best_of_earlier(earlier: Earlier, search: Search) -> list[tuple[TrialRow, float]]:
    """Return a share of each earlier study's trials, as large as its weight, the best first.

    They are evenly spread from the best down, so that bad ones stay known as bad. Each comes with
    its place among all trials of its study: a quantile of the metric.
    """
    sign = 1 if search.mode == "max" else -1
    studies: dict[tuple[object, float], list[tuple[float, TrialRow]]] = {}
    for row, weight in earlier:
        value = row.value(search.metric)
        if value is not None and math.isfinite(value):
            study = studies.setdefault((row.recorded_config.get("name"), weight), [])
            study.append((sign * value, row))
    kept: list[tuple[float, TrialRow]] = []
    for (_, weight), rows in studies.items():
        rows.sort(key=lambda one: one[0], reverse=True)
        size = len(rows)
        ranks = [int(index / weight) for index in range(math.ceil(weight * size))]
        kept += [(1 - (rank + 0.5) / size, rows[rank][1]) for rank in ranks if rank < size]
    kept.sort(key=lambda one: one[0], reverse=True)
    return [(row, place if sign > 0 else 1 - place) for place, row in kept]


def _untried(space: Space, trials: Sequence[TrialRow]) -> dict[str, Any]:
    """Return the first alternative of each choice that no trial has; of the choices with one."""
    found = {
        name: [label for label in labels if all(row.params[name] != label for row in trials)]
        for name, labels in space.alternatives.items()
    }
    return {name: labels[0] for name, labels in found.items() if labels}


def _known_families(space: Space, trials: Sequence[TrialRow], ordinal: int) -> dict[str, Any]:
    """Choose alternatives while the first trial of others is running, which may be slow.

    Whether a family deserves a second trial shows when its known good configuration has ended;
    until then the other slots go to those that have. Empty if that leaves no choice.
    """
    waiting = [
        row.params for row in trials if row.is_unfinished and row.ordinal < len(space.start)
    ]
    known = {
        name: [label for label in labels if all(one[name] != label for one in waiting)]
        for name, labels in space.alternatives.items()
        if waiting
    }
    return {name: labels[ordinal % len(labels)] for name, labels in known.items() if labels}


SAMPLERS: dict[str, Callable[[Space, Sequence[TrialRow], int, Earlier], Sample]] = {
    "tpe": draw_tpe,
    "random": draw_random,
    "grid": pick_next,
}
"""By ``search.algorithm`` of the space file: the configuration at a position in the search."""


def propose(
    space: Space,
    trials: Sequence[TrialRow],
    earlier: Earlier = (),
    ordinal: int | None = None,
) -> Proposal | None:
    """Propose the next trial of a search with the sampler that the space file names.

    Args:
        space: Space to sample.
        trials: Trials of the search so far, in the order of the ledger.
        earlier: Trials of earlier studies with weights from 0 to 1. Their parameters are those
            that fit the ranges of this space; samplers that do not learn leave them out.
        ordinal: Position of the trial, whatever the number of trials; None for that after the
            last of the trials.
    """
    if ordinal is None:
        ordinal = 1 + trials[-1].ordinal if trials else 0
        if ordinal >= space.num_trials:
            return None
    # Without a range there is nothing to learn.
    name = space.template.search.algorithm if space.ranges else "random"
    return as_proposal(SAMPLERS[name](space, trials, ordinal, earlier), ordinal)
