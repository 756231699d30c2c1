"""Stage before a search with a budget: time an epoch of each model, say how many trials fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ray

from tuner.ledger.extension import EXTENDED
from tuner.ledger.pace import Pace
from tuner.study.stages import limits_of
from tuner.trials.cluster import trials_at_once
from tuner.trials.samplers import as_proposal, draw_random
from tuner.trials.trial import time_epoch

if TYPE_CHECKING:
    from tuner.config import Space
    from tuner.study.context import Context
    from tuner.trials.assembly import TrialSpec
    from tuner.trials.plan import Proposal

MAX_DRAWS = 200
TIMEOUT_SECONDS = 300.0


def measure_pace(study: Context) -> None:
    """Record the time of an epoch of each family, unless the study has done so for this budget."""
    search = study.space.template.search
    before = study.ledger.last("pace")
    is_known = before is not None and before["budget"] == search.budget
    if search.budget_seconds is None or is_known or study.ledger.last("searched"):
        return
    if study.ledger.last(EXTENDED):  # has other limits, and its models have been timed in trials
        return
    if not all(one.is_alone for one in study.space.resources):
        return  # a few steps of one worker say little about several
    study.terminal.status("timing a few steps of each model")
    families, began = one_of_each_family(study.space), study.clock()
    timed = {
        model: _time(model, study.spec(one))
        for model, one in families.items()
        if not one.experiment.model.fits_at_once
    }
    try:
        found = dict(
            zip(timed, ray.get(list(timed.values()), timeout=TIMEOUT_SECONDS), strict=True)
        )
    except ray.exceptions.RayError as error:
        for one in timed.values():
            ray.cancel(one, force=True)
        reason = str(error).strip().splitlines()[-1]
        study.terminal.say(f"cannot time the models, so the budget is not checked: {reason}")
        return
    if not found:
        return
    limits, measured = limits_of(study), {
        "at_once": trials_at_once(study.cluster, *study.space.resources),
        "seconds_per_epoch": {model: round(found.get(model, 0.0), 4) for model in families},
        "start_seconds": round(study.clock() - began, 1),
    }  # fmt: skip
    limits.take({"kind": "pace", **measured})
    study.record(
        "pace",
        budget=search.budget,
        budget_seconds=search.budget_seconds,
        search_seconds=round(limits.seconds_left() or 0.0, 1),
        trials=study.space.num_trials,
        epochs=study.space.max_epochs,
        folds=study.space.template.data.num_folds or 1,
        **measured,
    )
    study.terminal.say(f"pace: {Pace.of(study.required('pace'))}")


def _time(model: str, spec: TrialSpec) -> ray.ObjectRef[float]:
    asked = spec.experiment.resources
    task = ray.remote(time_epoch).options(
        name=f"time {model}", num_cpus=asked.cpus_per_worker, num_gpus=asked.gpus_per_worker,
        label_selector=asked.labels,
    )  # fmt: skip
    found: ray.ObjectRef[float] = task.remote(spec)
    return found


def one_of_each_family(space: Space) -> dict[str, Proposal]:
    """Return a configuration of each model among the first draws, those of search.start first."""
    found: dict[str, Proposal] = {}
    for ordinal in range(min(MAX_DRAWS, space.num_trials)):
        one = as_proposal(draw_random(space, (), ordinal), ordinal)
        found.setdefault(one.experiment.model.name, one)
    return found
