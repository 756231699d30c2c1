"""Propose configurations: random, grid and TPE, each resumable from recorded trials."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tuner.config.ranges import Options, Quantized

if TYPE_CHECKING:
    from collections.abc import Mapping

    import optuna

    from tuner.config import Sample, Space
    from tuner.config.ranges import Range


class Sampler(Protocol):
    """Where a study's configurations come from."""

    def ask(self, ordinal: int) -> Sample | None:
        """The configuration of trial ``ordinal`` (from 0), or None when the space is used up."""

    def tell(self, ordinal: int, params: Mapping[str, Any], value: float | None) -> None:
        """What a configuration reached; None for a failure.

        Also takes configurations this object never proposed: those of an earlier run of the same
        study.
        """

    def resume(self, params: Mapping[str, Any]) -> None:
        """A configuration of an earlier run goes on; what it reaches will be told."""


class RandomSampler:
    """Independent draws; trial ``ordinal`` is the same on any machine and in any order."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed

    def ask(self, ordinal: int) -> Sample | None:
        """Draw from a generator seeded by the study's seed and the ordinal."""
        rng = np.random.default_rng((self._seed, ordinal))
        return self._space.sample(lambda _path, leaf: leaf.sample(rng))

    def tell(self, ordinal: int, params: Mapping[str, Any], value: float | None) -> None:
        """Nothing to learn."""

    def resume(self, params: Mapping[str, Any]) -> None:
        """Nothing to remember."""


class GridSampler:
    """Every combination once, in the order of the file."""

    def __init__(self, space: Space) -> None:
        self._samples = list(space.enumerate_grid())

    def ask(self, ordinal: int) -> Sample | None:
        """The next combination."""
        return self._samples[ordinal] if ordinal < len(self._samples) else None

    def tell(self, ordinal: int, params: Mapping[str, Any], value: float | None) -> None:
        """Nothing to learn."""

    def resume(self, params: Mapping[str, Any]) -> None:
        """Nothing to remember."""


def distribution(leaf: Range) -> optuna.distributions.BaseDistribution:
    """Optuna's distribution of a range; both ends belong to either.

    A quantized range is searched by the index of its value: Optuna adds up steps in floating point
    and can miss a value by one unit in the last place.
    """
    from optuna import distributions as d

    if isinstance(leaf, Options):
        return d.CategoricalDistribution(leaf.options)
    if isinstance(leaf, Quantized):
        return d.IntDistribution(0, leaf.num_values - 1)
    if leaf.whole:
        return d.IntDistribution(int(leaf.low), int(leaf.high), log=leaf.log)
    return d.FloatDistribution(leaf.low, leaf.high, log=leaf.log)


def _to_optuna(leaf: Range, value: Any) -> Any:
    return list(leaf.values()).index(value) if isinstance(leaf, Quantized) else value


def _from_optuna(leaf: Range, value: Any) -> Any:
    return leaf.values()[value] if isinstance(leaf, Quantized) else value


class TpeSampler:
    """Optuna's tree-structured Parzen estimator, defined by running down the space.

    A conditional block is asked for its alternative first, then only for that alternative's
    ranges, so the model of each part learns from the trials that had the part. Two trials at once
    see each other (constant liar).

    The first trials take the alternatives of each conditional block that stands in no other, in
    the order of the file, each once: drawn at random, one family in three would not be among the
    first ten trials of ten families, and TPE hardly asks for what it has never seen.
    """

    def __init__(self, space: Space, seed: int, maximise: bool, num_startup: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._asked: dict[int, optuna.trial.Trial] = {}
        self._untried = {name: list(labels) for name, labels in space.alternatives.items()}
        with warnings.catch_warnings():
            # `group`, which models each alternative's parameters jointly, may still change its
            # interface; pinned.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=seed, multivariate=True, group=True, constant_liar=True,
                n_startup_trials=num_startup,
            )  # fmt: skip
        self._study = optuna.create_study(
            direction="maximize" if maximise else "minimize", sampler=sampler
        )

    def ask(self, ordinal: int) -> Sample | None:
        """Suggest each range on the way down the space."""
        import optuna.distributions as d

        if first := {name: labels[0] for name, labels in self._untried.items() if labels}:
            self._study.enqueue_trial(first)
        trial = self._study.ask()
        self._asked[ordinal] = trial

        def choose(path: str, leaf: Range) -> Any:
            match distribution(leaf):
                case d.FloatDistribution(low=low, high=high, log=log):
                    return trial.suggest_float(path, low, high, log=log)
                case d.IntDistribution(low=low, high=high, log=log):
                    return _from_optuna(leaf, trial.suggest_int(path, low, high, log=log))
                case d.CategoricalDistribution(choices=choices):
                    return trial.suggest_categorical(path, choices)
            raise TypeError(f"no suggestion for {leaf!r}")

        sample = self._space.sample(choose)
        self.resume(sample.params)
        return sample

    def resume(self, params: Mapping[str, Any]) -> None:
        """Take the alternatives of a configuration from those that are still to be tried."""
        for name, labels in self._untried.items():
            if params[name] in labels:
                labels.remove(params[name])

    def tell(self, ordinal: int, params: Mapping[str, Any], value: float | None) -> None:
        """Tell Optuna; a trial stopped early is told with its best value."""
        import optuna

        failed = value is None or not math.isfinite(value)
        state = optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE
        if asked := self._asked.pop(ordinal, None):
            self._study.tell(asked, None if failed else value, state=state)
            return
        self.resume(params)
        distributions: dict[str, optuna.distributions.BaseDistribution] = {}
        searched: dict[str, Any] = {}

        def recall(path: str, leaf: Range) -> Any:
            distributions[path] = distribution(leaf)
            searched[path] = _to_optuna(leaf, params[path])
            return params[path]

        self._space.sample(recall)
        self._study.add_trial(
            optuna.trial.create_trial(
                params=searched,
                distributions=distributions,
                value=None if failed else value,
                state=state,
            )
        )


def build_sampler(space: Space, first: int = 0) -> Sampler:
    """The sampler that the space file's search block names.

    Args:
        space: what to sample.
        first: ordinal of the first trial it will be asked for; a study that goes on must not draw
            again what it drew at its start.
    """
    search = space.template.search
    if search.algorithm == "grid":
        return GridSampler(space)
    if search.algorithm == "random" or not space.ranges:
        return RandomSampler(space, search.seed)
    # Optuna's default of 10 random trials would be all of a short study.
    families = max((len(labels) for labels in space.alternatives.values()), default=0)
    startup = max(3, min(10, search.trials // 3), families)
    seed = (search.seed + 1_000_003 * first) % 2**32
    return TpeSampler(space, seed, search.mode == "max", startup)
