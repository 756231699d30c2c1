"""What Optuna is told of the trials of a search, for one draw of one of its samplers."""

from __future__ import annotations

import heapq
import math
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from statistics import NormalDist, median
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np
import optuna
from optuna import distributions as d
from optuna.trial import FrozenTrial, TrialState

from tuner.config.ranges import Options, Quantized
from tuner.ledger.trial_rows import TrialRow
from tuner.trials.observed import Observation, observe

if TYPE_CHECKING:
    from tuner.config import Search, Space
    from tuner.config.ranges import Range
    from tuner.trials.observed import Earlier

Trials: TypeAlias = Sequence[TrialRow]

MIN_OF_GP, MOST_OF_GP = 4, 200
"""Trials of one family that a Gaussian process needs, and of all; cost grows with their cube."""


def distribution(leaf: Range) -> d.BaseDistribution:
    """Return Optuna's distribution of a range; both include their ends.

    A quantized range is searched by the index of its value: Optuna adds up steps in floating point
    and can miss a value by one unit in the last place.
    """
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


class _Told(FrozenTrial):
    """A trial that a study takes as it is; copying 1,000 of them takes longer than the draw."""

    def __deepcopy__(self, _memo: object) -> Self:
        return self


def tpe_study(space: Space, trials: Trials, ordinal: int, earlier: Earlier = ()) -> optuna.Study:
    """Return the trials of a search as Optuna's tree-structured Parzen estimator is told them.

    A trial that is not whole is pruned, at the epoch or fold that it reached and with the metric
    there. TPE ranks such trials below the whole ones and by how far they came. As pruned counts
    also a trial that is paused or runs, once it has reported: else the one that did best at a
    rung would, while it goes on, be an example of a bad trial. Trials that have not reported see
    each other (constant liar). A trial that breaks a limit of its costs counts as pruned before
    all others. With two objectives, for which Optuna knows no pruned trials, all are whole and
    their values are ranks; see ``_scores``.

    Args:
        space: Space to sample.
        trials: Trials of the search, in the order of the ledger.
        ordinal: Position of the trial that is to be drawn, which has a seed of its own.
        earlier: Trials of earlier studies with their weights.
    """
    search = space.template.search
    seen, running = observe(trials, search, earlier)
    with warnings.catch_warnings():
        # `group`, which models each alternative's parameters jointly, is experimental; the
        # version of Optuna is pinned.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=_seed(search, ordinal), multivariate=True, group=True,
            n_startup_trials=startup(space),
        )  # fmt: skip
    sign = 1 if search.mode == "max" else -1
    study = _Study(space, sampler, search.mode)
    scores = _scores(seen, search) if search.cost else ()
    for one, ranks in zip_longest(seen, scores):
        if ranks:
            study.tell(one.params, ranks)
        elif one.step == math.inf:
            study.tell(one.params, [sign * one.gain])
        else:
            study.tell(one.params, reached=(int(one.step), sign * one.gain))
    for params in running:
        study.tell(params)
    return study.study


def gp_study(
    space: Space, trials: Trials, ordinal: int, earlier: Earlier, first: Mapping[str, Any]
) -> optuna.Study:
    """Return the trials of a search as Optuna's Gaussian process is told them.

    It does not know pruned trials, so it learns the normal scores of the trials' order, the one
    that TPE uses.

    Args:
        space: Space to sample.
        trials: Trials of the search, in the order of the ledger.
        ordinal: Position of the trial that is to be drawn, which has a seed of its own.
        earlier: Trials of earlier studies with their weights.
        first: Values that are given; only trials with the same blocks are told.
    """
    search = space.template.search
    seen, running = observe(trials, search, earlier, MOST_OF_GP)
    blocks = {name: value for name, value in first.items() if name in space.branching}

    def has_same(params: Mapping[str, Any]) -> bool:
        return all(params.get(name) == value for name, value in blocks.items())

    sampler = optuna.samplers.GPSampler(
        seed=_seed(search, ordinal),
        n_startup_trials=MIN_OF_GP if blocks else startup(space),
    )
    study = _Study(space, sampler)
    for one, ranks in zip(seen, _scores(seen, search), strict=True):
        if has_same(one.params):
            scores = [NormalDist().inv_cdf(rank / (len(seen) + 1)) for rank in ranks]
            study.tell({k: v for k, v in one.params.items() if k not in blocks}, scores)
    for params in filter(has_same, running):
        study.tell({k: v for k, v in params.items() if k not in blocks})
    return study.study


def nsga2_study(space: Space, trials: Trials, ordinal: int, earlier: Earlier = ()) -> optuna.Study:
    """Return the trials of a search as Optuna's genetic algorithm is told them.

    The best trials so far, in the order that TPE uses, are one generation, and the next trial is
    the first child of it: evolution in a steady state, which needs no memory of generations. In
    the ranges of alternatives that a parent did not choose it has random values of its own. With
    two objectives Optuna chooses the parents, by domination and distance. See ``tpe_study`` for
    the arguments.
    """
    search = space.template.search
    seen, _ = observe(trials, search, earlier)
    size = max(startup(space), min(50, search.trials // 4))
    parents = seen if search.cost else heapq.nlargest(size, seen, key=lambda one: one.merit)
    sampler = optuna.samplers.NSGAIISampler(seed=_seed(search, ordinal), population_size=size)
    study = _Study(space, sampler)
    for one, ranks in zip(parents, _scores(parents, search), strict=True):
        genes = {**_anything(space, search.seed, one.ordinal % 2**32), **one.params}
        study.tell(genes, ranks, system_attrs={"NSGAIISampler:generation": 0})
    return study.study


def startup(space: Space) -> int:
    """Return the number of trials before a sampler learns: at least one of each alternative."""
    # Optuna's default of 10 random trials would be all of a short study.
    families = max((len(labels) for labels in space.alternatives.values()), default=0)
    return max(3, min(10, space.template.search.trials // 3), families)


def _seed(search: Search, ordinal: int) -> int:
    return (search.seed + 1_000_003 * ordinal) % 2**32


def _anything(space: Space, *seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: leaf.sample(rng) for name, leaf in space.ranges.items()}


def _scores(seen: Sequence[Observation], search: Search) -> list[list[float]]:
    """Return the rank of each trial in the order and, with two objectives, by its cost.

    Domination needs no more than ranks, and these compare a trial that was stopped with a whole
    one. Trials that break a limit are the worst by both; an unknown cost counts as a middle one.
    """
    merits = _ranks([one.merit for one in seen])
    if not search.cost:
        return [[rank] for rank in merits]
    middle = median([one.cost for one in seen if not math.isnan(one.cost)] or [0.0])
    costs = [middle if math.isnan(one.cost) else one.cost for one in seen]
    cheap = _ranks([(one.step >= 0, -cost) for one, cost in zip(seen, costs, strict=True)])
    return [[*pair] for pair in zip(merits, cheap, strict=True)]


def _ranks(values: Sequence[tuple[float, float]]) -> list[float]:
    """Return the rank of each value, from 1 for the smallest; ties share their mean."""
    order = sorted(values)
    return [(bisect_left(order, one) + bisect_right(order, one) + 1) / 2 for one in values]


class _Study:
    """A study of Optuna that takes trials with the parameters of a space."""

    def __init__(self, space: Space, sampler: optuna.samplers.BaseSampler, mode: str = "max"):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        best: Literal["maximize", "minimize"] = "maximize" if mode == "max" else "minimize"
        # What two objectives are told are ranks, whatever the direction of the metric.
        self.study = optuna.create_study(
            directions=["maximize", "maximize"] if space.template.search.cost else [best],
            sampler=sampler,
        )
        self._ranges = space.ranges
        self._distributions = {name: distribution(leaf) for name, leaf in self._ranges.items()}

    def tell(
        self,
        params: Mapping[str, Any],
        values: Sequence[float] | None = None,
        reached: tuple[int, float] | None = None,
        system_attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a trial: whole with a value, pruned with a step and its value, or else running."""
        state = TrialState.PRUNED if reached else TrialState.RUNNING
        ended = values is not None or reached is not None
        trial = _Told(
            number=-1, trial_id=-1, state=TrialState.COMPLETE if values is not None else state,
            value=None, values=values, datetime_start=_NOW,
            datetime_complete=_NOW if ended else None,
            params={name: to_optuna(self._ranges[name], one) for name, one in params.items()},
            distributions={name: self._distributions[name] for name in params},
            user_attrs={}, system_attrs=dict(system_attrs or {}),
            intermediate_values=dict([reached] if reached else []),
        )  # fmt: skip
        self.study.add_trial(trial)


_NOW = datetime.fromtimestamp(0, UTC)  # a trial of Optuna has times; no sampler reads them
