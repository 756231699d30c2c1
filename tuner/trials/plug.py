"""Samplers from outside of this program, named by a space file as ``module:name``."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from tuner.config.messages import nearest
from tuner.errors import ConfigError, SpaceError, UsageError

if TYPE_CHECKING:
    from tuner.config import Sample, Space
    from tuner.ledger.trial_rows import TrialRow
    from tuner.trials.observed import Earlier


class Plug(Protocol):
    """A sampler of one's own: a function, or a class that makes one when called without arguments.

    It is a pure function of what it is given. A class is called for every trial, so nothing can be
    kept in it, and a study that was interrupted goes on as if it had not been.
    """

    def __call__(
        self, space: Space, trials: Sequence[TrialRow], rng: np.random.Generator
    ) -> Mapping[str, Any]:
        """Return values for the next trial.

        Args:
            space: The space; ``space.ranges`` has the ranges by name, those of every alternative
                included, and ``space.template.search`` the metric (``score``), its direction and
                the second objective (``cost``).
            trials: Trials of the search so far, finished or not, in the order in which they began.
                ``row.params`` holds the values of one, ``row.value(metric)`` what it reached
                (None while it runs, if it failed, and if it breaks a limit), ``row.history`` its
                reports, ``row.costs`` what it costs.
            rng: Source of randomness; its seed follows from the search's and the trial's ordinal.

        Returns:
            Values by the names of their ranges; of a choice between blocks, the label. What is
            left out is drawn at random; values of alternatives that are not chosen are ignored.
        """


def load(name: str) -> Plug:
    """Import a sampler, which runs the code of its module.

    Args:
        name: ``module:name``, on the path of this Python.

    Raises:
        UsageError: There is no such module or name, its code fails, or it is no function or class.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
        made = found() if isinstance(found, type) else found
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _failed(name, "cannot be imported", error) from error
        raise UsageError(
            f"search.plug: there is no module {error.name!r} for {name}; set PYTHONPATH to the "
            "folder that holds it"
        ) from error
    except AttributeError as error:
        if error.name != attribute or not isinstance(error.obj, type(importlib)):
            raise _failed(name, "cannot be imported", error) from error
        near = nearest(attribute, vars(error.obj), 1)
        hint = f"; did you mean `{module}:{near[0]}`?" if near else ""
        raise UsageError(f"search.plug: {module} has no {attribute!r}{hint}") from error
    except Exception as error:
        raise _failed(name, "cannot be imported", error) from error
    if not callable(made):
        what = "instances cannot be called; write __call__" if made is not found else "no function"
        raise UsageError(f"search.plug: {name}: {what}(space, trials, rng), got {made!r:.80}")
    return cast("Plug", made)


def draw_plugged(
    space: Space, trials: Sequence[TrialRow], ordinal: int, _earlier: Earlier = ()
) -> Sample:
    """Draw with the sampler that ``search.plug`` names.

    Raises:
        UsageError: It cannot be loaded, it failed, or what it returned is no configuration.
    """
    search = space.template.search
    name = str(search.plug)
    rng = np.random.default_rng((search.seed, ordinal))
    plug = load(name)
    try:
        values = plug(space, tuple(trials), rng)
    except Exception as error:
        raise _failed(name, f"failed at trial {ordinal}", error) from error
    if not isinstance(values, Mapping):
        raise UsageError(
            f"search.plug: {name} must return values by the names of their ranges, "
            f"{{'optim.lr': 0.001}} say, got {values!r:.80}"
        )
    for unknown in [one for one in values if one not in space.ranges]:
        near = nearest(str(unknown), space.ranges, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"it has {', '.join(space.ranges)}"
        raise UsageError(f"search.plug: {name} returned {unknown!r}, no range here; {hint}")
    plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
    try:
        return space.sample(lambda path, leaf: plain.get(path, leaf.sample(rng)))
    except (SpaceError, ConfigError) as error:
        raise UsageError(f"search.plug: {name} returned what cannot be: {error}") from error


def _failed(name: str, what: str, error: Exception) -> UsageError:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return UsageError(f"search.plug: {name} {what}: {type(error).__name__}: {error}{place}")
