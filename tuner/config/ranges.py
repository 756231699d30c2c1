"""The words of a space file to ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.config.range_kinds import (
    Choice,
    Grid,
    Integer,
    LogInteger,
    LogUniform,
    Quantized,
    Uniform,
)
from tuner.config.scalars import show
from tuner.errors import SpaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tuner.config.range_kinds import Range, Scalar

_NUMERIC: dict[str, tuple[Callable[..., Range], str]] = {
    "uniform": (Uniform, "[low, high]"),
    "log_uniform": (LogUniform, "[low, high]"),
    "integer": (Integer, "[low, high]"),
    "log_integer": (LogInteger, "[low, high]"),
    "quantized": (Quantized, "[low, high, step]"),
}
KINDS: tuple[str, ...] = (*_NUMERIC, "choice", "grid")
"""The words that name a range in a space file."""


def make_range(kind: str, arguments: Sequence[Scalar]) -> Range:
    """Build the range that a space file writes as ``{kind: arguments}``.

    Raises:
        SpaceError: The kind is unknown, or the arguments make no such range.
    """
    if kind == "choice":
        return Choice(tuple(arguments))
    if kind == "grid":
        return Grid(tuple(arguments))
    if kind not in _NUMERIC:
        raise SpaceError(f"unknown kind of range {kind!r}; there are {', '.join(KINDS)}")
    make, form = _NUMERIC[kind]
    if len(arguments) != form.count(",") + 1:
        raise SpaceError(f"{kind} takes {form}, got {len(arguments)} values")
    numbers = [_number(kind, argument) for argument in arguments]
    return make(*map(float, numbers)) if make in (Uniform, LogUniform) else make(*numbers)


def _number(kind: str, argument: Scalar) -> float:
    if isinstance(argument, int | float) and not isinstance(argument, bool):
        return argument
    raise SpaceError(f"{kind} takes numbers, got {show(argument)}")
