"""The costs of a trial's model, measured once and kept in its folder."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch

from tuner.ledger.trial_rows import keeps_limits
from tuner.training.costs import broken_limits, measure

if TYPE_CHECKING:
    from pipelines.storage import Folder
    from tuner.training.feed import Workers
    from tuner.trials.assembly import TrialParts, TrialSpec

COSTS_FILE = "costs.json"


def known_costs(trial: Folder, spec: TrialSpec) -> dict[str, float]:
    """Return the costs that have been measured and are asked for; empty before."""
    names = spec.experiment.search.costs
    if not names or spec.stage not in ("search", "confirm"):
        return {}
    try:
        kept = trial.read_json(COSTS_FILE)
        return {name: float(kept[name]) for name in names}
    except (OSError, ValueError, LookupError, TypeError):
        return {}  # not measured yet, or damaged


def measure_once(
    trial: Folder, spec: TrialSpec, parts: TrialParts, workers: Workers, *, is_fitted: bool
) -> bool:
    """Measure the costs of a trial's model unless they are known; all workers get the same.

    It does nothing before a model that fits at once is fitted, whose size follows from what it has
    learned, nor later for any other.

    Returns:
        False if the trial breaks a limit that it must keep, so that it ends untrained.

    Raises:
        StorageFullError: No room to keep them; names the path.
    """
    search, is_its_time = spec.experiment.search, spec.experiment.model.fits_at_once is is_fitted
    if not (search.costs and is_its_time and spec.stage in ("search", "confirm")):
        return True
    costs = known_costs(trial, spec)
    if not costs:
        values = [0.0] * len(search.costs)
        if workers.rank == 0:
            values = list(_measured(parts, search.costs).values())
        # The time differs between workers, but all of them must train, or none.
        shared = torch.tensor(values, dtype=torch.float64, device=workers.device)
        workers.sum([shared])
        costs.update(zip(search.costs, shared.tolist(), strict=True))
        if workers.rank == 0:
            trial.write_json(COSTS_FILE, costs)
    is_bound = keeps_limits(spec.trial_id, spec.stage)
    return not (is_bound and broken_limits(costs, search.at_most))


def _measured(parts: TrialParts, names: tuple[str, ...]) -> dict[str, float]:
    # On the CPU also where it trains on a GPU; the trial's own network stays untouched.
    classifier = copy.deepcopy(parts.classifier).cpu()
    clip = torch.from_numpy(np.array(parts.arrays.x[:1], dtype=np.float32))
    return measure(classifier, clip, parts.recipe.crops, names)
