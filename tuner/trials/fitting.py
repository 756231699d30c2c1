"""Trials of another space, or of an earlier version of it, in the parameters of a space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.errors import UserError
from tuner.config import Experiment
from tuner.config.start import label_of
from tuner.errors import SpaceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuner.config import Space
    from tuner.config.tree import Open
    from tuner.config.yaml_text import Scalar
    from tuner.ledger.trial_rows import TrialRow

# What a trial learns does not depend on them, or an extension cannot change them.
UNREAD = ("name", "reference", "data", "search", "scheduler", "confirm", "resources")


class Fit(NamedTuple):
    """A trial in the parameters of a space.

    Attributes:
        params: Values of the ranges that it has a value in.
        misfits: Why it has none in others, by parameter.
        changed: Settings that the space has fixed to other values, as sentences.
    """

    params: dict[str, Scalar]
    misfits: dict[str, str]
    changed: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Why the trial is none of the space; empty if it could be one of its configurations."""
        return "; ".join([*self.misfits.values(), *self.changed])


def fit(space: Space, row: TrialRow) -> Fit:
    """Return a trial in the parameters of a space, whatever space it was drawn from.

    A setting that was fixed when the trial ran and is a range now has the value that it had.
    """
    misfits: dict[str, str] = {}

    def value_in(setting: Open) -> Scalar:
        value = row.params.get(setting.name, value_at(row.recorded_config, setting.path))
        if isinstance(value, dict):  # a block, which its name tells apart from others
            value = value.get("name")
        try:
            return setting.range.settle(label_of(value))
        except SpaceError as error:
            misfits[setting.name] = f"{setting.name} {error}"
            return setting.first

    drawn = space.tree.draw(value_in)
    params = {name: value for name, value in drawn.params.items() if name not in misfits}
    changed: tuple[str, ...] = ()
    if not misfits:
        try:
            changed = _changed(Experiment.model_validate(drawn.values), row.experiment)
        except UserError as error:
            changed = (str(error),)
    return Fit(params, misfits, changed)


def value_at(config: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Return a setting of a recorded experiment; None if it has none of the name."""
    found: Any = config
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _changed(now: Experiment, before: Experiment) -> tuple[str, ...]:
    has, had = (_learned(one) for one in (now, before))
    return tuple(
        f"{name} was {had.get(name)}, is {has.get(name)}"
        for name in sorted({*has, *had})
        if has.get(name) != had.get(name)
    )


def _learned(experiment: Experiment) -> dict[str, Any]:
    """Return the settings that change what a trial learns, by dotted path."""
    model = experiment.model.with_absolute_weights()
    settings = experiment.model_copy(update={"model": model}).effective_settings()
    found: dict[str, Any] = {}
    for block, values in settings.items():
        if block not in UNREAD:
            parts = values if isinstance(values, dict) else {"": values}
            found |= {f"{block}.{key}".rstrip("."): value for key, value in parts.items()}
    return found
