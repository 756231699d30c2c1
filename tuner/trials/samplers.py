"""Samplers, which propose the trials of a search: one table of functions of the trials so far."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from tuner.config.shares import value_at
from tuner.trials.plan import Proposal
from tuner.trials.plug import draw_plugged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tuner.config import Sample, Space
    from tuner.ledger.trial_rows import TrialRow
    from tuner.trials.observed import Earlier


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
    return space.grid_point(ordinal)


def draw_qmc(
    space: Space, _trials: Sequence[TrialRow], ordinal: int, _earlier: Earlier = ()
) -> Sample:
    """Return a point of a scrambled Sobol sequence, which leaves smaller gaps than random draws.

    Each range has a coordinate of its own, those of every alternative included; a configuration
    reads those of the alternatives that it chose.
    """
    from scipy.stats import qmc  # takes 0.5 s to import

    ranges, number = space.ranges, ordinal - len(space.start)
    engine = qmc.Sobol(len(ranges), scramble=True, rng=space.template.search.seed)
    if number:  # of none the engine knows no skipping
        engine.fast_forward(number)
    point = dict(zip(ranges, engine.random(1)[0].tolist(), strict=True))
    return space.sample(lambda name, leaf: value_at(leaf, point[name]))


def draw_learned(
    space: Space, trials: Sequence[TrialRow], ordinal: int, earlier: Earlier = ()
) -> Sample:
    """Draw with a sampler of Optuna; see ``optuna_samplers``."""
    from tuner.trials import optuna_samplers  # takes 0.4 s to import

    draw = optuna_samplers.DRAWS[space.template.search.algorithm]
    return draw(space, trials, ordinal, earlier)


SAMPLERS: dict[str, Callable[[Space, Sequence[TrialRow], int, Earlier], Sample]] = {
    "tpe": draw_learned,
    "gp": draw_learned,
    "nsga2": draw_learned,
    "qmc": draw_qmc,
    "random": draw_random,
    "grid": pick_next,
    "plug": draw_plugged,
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
    is_given = ordinal < len(space.start) or not space.ranges
    draw = draw_random if is_given else SAMPLERS[space.template.search.algorithm]
    return as_proposal(draw(space, trials, ordinal, earlier), ordinal)
