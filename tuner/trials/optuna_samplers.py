"""Samplers of Optuna, one object for each draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna import distributions as d

from tuner.config.shares import near
from tuner.trials.optuna_study import (
    Trials,
    distribution,
    from_optuna,
    gp_study,
    nsga2_study,
    startup,
    to_optuna,
    tpe_study,
)

if TYPE_CHECKING:
    from tuner.config import Sample, Space
    from tuner.config.ranges import Range
    from tuner.trials.observed import Earlier

MOST_ASKED, MOST_DRAWN = 3, 30
"""Draws of a sampler, then random ones, until a configuration is new; the same scores the same."""


def draw_tpe(space: Space, trials: Trials, ordinal: int, earlier: Earlier) -> Sample:
    """Draw with the tree-structured Parzen estimator."""
    study = tpe_study(space, trials, ordinal, earlier)
    return _ask(space, trials, ordinal, study, _first(space, trials, ordinal, earlier))


def draw_nsga2(space: Space, trials: Trials, ordinal: int, earlier: Earlier) -> Sample:
    """Draw with a genetic algorithm."""
    study = nsga2_study(space, trials, ordinal, earlier)
    return _ask(space, trials, ordinal, study, _first(space, trials, ordinal, earlier))


def draw_gp(space: Space, trials: Trials, ordinal: int, earlier: Earlier) -> Sample:
    """Draw with a Gaussian process.

    It knows no conditional ranges, so TPE chooses between blocks, and the process learns from the
    trials that chose the same. With filled-in values for all others it went on to try alternatives
    that had always been bad, at values of the good ones.
    """
    first = _first(space, trials, ordinal, earlier)
    if space.branching:
        drawn = draw_tpe(space, trials, ordinal, earlier).params
        first |= {name: value for name, value in drawn.items() if name in space.branching}
    study = gp_study(space, trials, ordinal, earlier, first)
    return _ask(space, trials, ordinal, study, first)


DRAWS: dict[str, Callable[[Space, Trials, int, Earlier], Sample]] = {
    "tpe": draw_tpe,
    "gp": draw_gp,
    "nsga2": draw_nsga2,
}
"""By ``search.algorithm`` of the space file."""


def _ask(
    space: Space, trials: Trials, ordinal: int, study: optuna.Study, first: Mapping[str, Any]
) -> Sample:
    """Ask a study for a configuration in a space defined by run, with some given values.

    A conditional block is asked for its alternative first, then only for the ranges of that
    alternative.
    """
    rng = np.random.default_rng((space.template.search.seed, ordinal))

    def ask() -> Sample:
        if first:
            study.enqueue_trial(dict(first))
        return space.sample(partial(_suggest, study.ask()))

    asked = ask()
    more = (ask() for _ in range(MOST_ASKED - 1))
    drawn = (space.sample(lambda _, leaf: leaf.sample(rng)) for _ in range(MOST_DRAWN))
    tried = [row.params for row in trials]
    return next((one for one in chain([asked], more, drawn) if one.params not in tried), asked)


def _first(space: Space, trials: Trials, ordinal: int, earlier: Earlier) -> dict[str, Any]:
    """Return what is not left to a sampler.

    Each alternative of the outermost conditional blocks comes once, in the order of the file,
    before any comes twice. With random draws, one family in three would not be among the first ten
    trials of ten families, and TPE hardly proposes what it has never seen.
    """
    families = _untried(space, trials) or _known_families(space, trials, ordinal)
    return (_near_defaults(space, ordinal) if not earlier else {}) | families


def _near_defaults(space: Space, ordinal: int) -> dict[str, Any]:
    """Return values around the defaults of ranges for half of the trials before a sampler learns.

    Half, so that wrong defaults cost little; later trials follow from results alone. The mixture
    is that of PriorBand (Mallik et al. 2023, arXiv 2306.12370). Optuna's TPE has one weight for a
    prior in the middle of all ranges.
    """
    rng = np.random.default_rng((space.template.search.seed, ordinal, 1))
    if not space.defaults or ordinal >= startup(space) or rng.random() < 0.5:
        return {}
    ranges = space.ranges
    return {
        name: to_optuna(ranges[name], near(ranges[name], value, rng))
        for name, value in space.defaults.items()
    }


def _suggest(trial: optuna.Trial, path: str, leaf: Range) -> Any:
    match distribution(leaf):
        case d.FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(path, low, high, log=log)
        case d.IntDistribution(low=low, high=high, log=log):
            return from_optuna(leaf, trial.suggest_int(path, low, high, log=log))
        case d.CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(path, choices)
    raise TypeError(f"no suggestion for {leaf!r}")


def _untried(space: Space, trials: Trials) -> dict[str, Any]:
    """Return the first alternative of each choice that no trial has; of the choices with one."""
    found = {
        name: [label for label in labels if all(row.params[name] != label for row in trials)]
        for name, labels in space.alternatives.items()
    }
    return {name: labels[0] for name, labels in found.items() if labels}


def _known_families(space: Space, trials: Trials, ordinal: int) -> dict[str, Any]:
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
