"""The space's default configuration, which the confirmation trains beside the best trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.errors import ConfigError
from tuner.ledger.trial_rows import DEFAULT, TrialRow
from tuner.trials.samplers import as_proposal

if TYPE_CHECKING:
    from tuner.study.context import Context


def default_configuration(study: Context) -> TrialRow | None:
    """Return the default configuration: a trial of the search if it has it, else a row of its own.

    None if the space asks for none, has no range, or if the configuration is impossible or has
    failed in the search.
    """
    space = study.space
    if not (space.template.confirm.default and space.ranges):
        return None
    try:
        sample = space.default_sample()
    except ConfigError as error:
        study.terminal.say(f"default configuration: left out: {error.problems[0].message}")
        return None
    for row in study.rows("search").values():
        if row.params == sample.params and not row.is_left_out:
            if row.breaks:
                study.terminal.say(f"default configuration: left out: {row.breaks}")
            return row if row.value(study.metric) is not None else None
    made = as_proposal(sample, 0)
    config = sample.experiment.model_dump(mode="json")
    name = f"{DEFAULT}{made.trial_id.rpartition('-')[2]}"
    return TrialRow(name, "search", 0, made.seed, sample.params, config, None)
