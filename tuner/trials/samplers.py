"""Samplers, which propose the trials of a search: one table, each resumed from the ledger."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.config.ranges import Options, Quantized
from tuner.trials.plan import Proposal, Queue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import optuna

    from tuner.config import Sample, Space
    from tuner.config.ranges import Range
    from tuner.ledger.selection import TrialRow
    from tuner.trials.plan import Proposer


def num_trials(space: Space) -> int:
    """Return the number of trials of a search: at most one for each configuration."""
    requested, size = space.template.search.trials, space.grid_size()
    return requested if size is None else min(requested, size)


def _first_new(rows: Sequence[TrialRow]) -> int:
    """Return the first ordinal that earlier runs of the study have not used."""
    return 1 + max((row.ordinal for row in rows), default=-1)


def _proposal(sample: Sample, ordinal: int) -> Proposal:
    experiment = sample.experiment
    seed = experiment.search.seed
    # The id depends only on the trial's content, so a second proposal has the same id.
    identity = json.dumps([experiment.name, sample.params, seed, ordinal])
    digest = hashlib.blake2b(identity.encode(), digest_size=3).hexdigest()
    trial_id = f"t{ordinal:03d}-{digest}"
    return Proposal(trial_id, "search", seed, experiment, ordinal, sample.params)


def _independent(space: Space, ordinal: int) -> Sample:
    """Draw a configuration that depends only on the seed of the search and its ordinal.

    The first ones have the values of ``search.start``; only what those leave out is drawn.
    """
    rng = np.random.default_rng((space.template.search.seed, ordinal))
    given = dict(enumerate(space.start)).get(ordinal, {})
    return space.sample(lambda name, leaf: given[name] if name in given else leaf.sample(rng))


def random_sampler(space: Space, rows: Sequence[TrialRow] = ()) -> Proposer:
    """Propose independent draws, those of ``search.start`` first."""
    ordinals = range(_first_new(rows), num_trials(space))
    return Queue(_proposal(_independent(space, ordinal), ordinal) for ordinal in ordinals)


def grid_sampler(space: Space, rows: Sequence[TrialRow] = ()) -> Proposer:
    """Propose every combination once, in the order of the file."""
    samples = list(space.enumerate_grid())
    ordinals = range(_first_new(rows), num_trials(space))
    return Queue(_proposal(samples[ordinal], ordinal) for ordinal in ordinals)


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
    return list(leaf.values()).index(value) if isinstance(leaf, Quantized) else value


def from_optuna(leaf: Range, value: Any) -> Any:
    """Convert a value that Optuna suggests to a value of the range."""
    return leaf.values()[value] if isinstance(leaf, Quantized) else value


class TpeSampler:
    """Optuna's tree-structured Parzen estimator, with a space defined by run.

    A conditional block is asked for its alternative first, then only for the ranges of that
    alternative, so the model of each part learns from the trials that had the part. Trials that
    run at the same time see each other (constant liar).

    The first trials are those of ``search.start``. The next ones take each alternative of the
    outermost conditional blocks that is still untried, in the order of the file. With random
    draws, one family in three would not be among the first ten trials of ten families, and TPE
    hardly proposes what it has never seen. While a trial of ``search.start`` is running, its
    family gets no other.

    Args:
        space: Space to sample.
        rows: Search trials of earlier runs; those that are still running count as tried, and
            their results follow.

    Attributes:
        optuna_study: The trials as Optuna knows them.
    """

    def __init__(self, space: Space, rows: Sequence[TrialRow] = ()) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        search = space.template.search
        self._space = space
        self._ordinals = iter(range(_first_new(rows), num_trials(space)))
        self._asked: dict[int, optuna.trial.Trial] = {}
        self._running: dict[int, Mapping[str, Any]] = {}  # parameters by ordinal
        self._untried = {name: list(labels) for name, labels in space.alternatives.items()}
        # Optuna's default of 10 random trials would be all of a short study.
        families = max((len(labels) for labels in space.alternatives.values()), default=0)
        with warnings.catch_warnings():
            # `group`, which models each alternative's parameters jointly, is experimental; the
            # version of Optuna is pinned.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                # A resumed study must not draw again what it drew at its start.
                seed=(search.seed + 1_000_003 * _first_new(rows)) % 2**32,
                multivariate=True, group=True, constant_liar=True,
                n_startup_trials=max(3, min(10, search.trials // 3), families),
            )  # fmt: skip
        self.optuna_study = optuna.create_study(
            direction="maximize" if search.mode == "max" else "minimize", sampler=sampler
        )
        for row in rows:
            if row.is_unfinished:
                self._mark_tried(row.params)
                self._running[row.ordinal] = row.params
            else:
                self._add(row.params, row.value(search.metric))

    def propose(self) -> Proposal | None:
        """Suggest a value for each range on the way down the space."""
        import optuna.distributions as d

        ordinal = next(self._ordinals, None)
        if ordinal is None:
            return None
        first = {name: labels[0] for name, labels in self._untried.items() if labels}
        first = first or self._known_families(ordinal)
        if ordinal < len(self._space.start):
            ranges, given = self._space.ranges, _independent(self._space, ordinal).params
            first = {name: to_optuna(ranges[name], value) for name, value in given.items()}
        if first:
            self.optuna_study.enqueue_trial(first)
        trial = self._asked[ordinal] = self.optuna_study.ask()

        def choose(path: str, leaf: Range) -> Any:
            match distribution(leaf):
                case d.FloatDistribution(low=low, high=high, log=log):
                    return trial.suggest_float(path, low, high, log=log)
                case d.IntDistribution(low=low, high=high, log=log):
                    return from_optuna(leaf, trial.suggest_int(path, low, high, log=log))
                case d.CategoricalDistribution(choices=choices):
                    return trial.suggest_categorical(path, choices)
            raise TypeError(f"no suggestion for {leaf!r}")

        sample = self._space.sample(choose)
        self._mark_tried(sample.params)
        self._running[ordinal] = sample.params
        return _proposal(sample, ordinal)

    def ended(self, proposal: Proposal, value: float | None, is_partial: bool = False) -> None:
        """Tell Optuna; a trial that was stopped early counts with its best value."""
        self._running.pop(proposal.ordinal, None)
        if asked := self._asked.pop(proposal.ordinal, None):
            reached, state = _outcome(value)
            self.optuna_study.tell(asked, reached, state=state)
        else:  # a trial that an earlier run of the study started
            self._add(proposal.params, value)

    def _known_families(self, ordinal: int) -> dict[str, Any]:
        """Choose alternatives while the first trial of others is running, which may be slow.

        Whether a family deserves a second trial shows when its known good configuration has ended;
        until then the other slots go to those that have. Empty if that leaves no choice.
        """
        start = range(len(self._space.start))
        waiting = [params for number, params in self._running.items() if number in start]
        known = {
            name: [label for label in labels if all(one[name] != label for one in waiting)]
            for name, labels in self._space.alternatives.items()
            if waiting
        }
        return {name: labels[ordinal % len(labels)] for name, labels in known.items() if labels}

    def _mark_tried(self, params: Mapping[str, Any]) -> None:
        for name, labels in self._untried.items():
            if params[name] in labels:
                labels.remove(params[name])

    def _add(self, params: Mapping[str, Any], value: float | None) -> None:
        """Add a trial that this object did not propose."""
        import optuna

        self._mark_tried(params)
        distributions: dict[str, optuna.distributions.BaseDistribution] = {}
        searched: dict[str, Any] = {}

        def recall(path: str, leaf: Range) -> Any:
            distributions[path] = distribution(leaf)
            searched[path] = to_optuna(leaf, params[path])
            return params[path]

        self._space.sample(recall)
        reached, state = _outcome(value)
        self.optuna_study.add_trial(
            optuna.trial.create_trial(
                params=searched, distributions=distributions, value=reached, state=state
            )
        )


def _outcome(value: float | None) -> tuple[float | None, optuna.trial.TrialState]:
    """Return the value and state of an ended trial, as Optuna takes them."""
    from optuna.trial import TrialState

    if value is None or not math.isfinite(value):
        return None, TrialState.FAIL
    return value, TrialState.COMPLETE


SAMPLERS: dict[str, Callable[[Space, Sequence[TrialRow]], Proposer]] = {
    "tpe": TpeSampler,
    "random": random_sampler,
    "grid": grid_sampler,
}
"""Builders by ``search.algorithm`` of the space file."""


def build_sampler(space: Space, rows: Sequence[TrialRow] = ()) -> Proposer:
    """Build the sampler that the space file names.

    Args:
        space: Space to sample.
        rows: Search trials of earlier runs, in the order of their start.
    """
    # Without a range there is nothing to learn.
    name = space.template.search.algorithm if space.ranges else "random"
    return SAMPLERS[name](space, rows)
