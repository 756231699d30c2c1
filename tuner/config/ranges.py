"""Ranges that hyperparameters are drawn from; both ends are included."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypeGuard

from pipelines.plain_text import shorten
from tuner.errors import SpaceError

if TYPE_CHECKING:
    import numpy as np

    from tuner.config.yaml_text import Scalar

_INT64_MAX = 2**63 - 1  # numpy draws 64-bit integers
_MAX_STEPS = 1_000_000


@dataclass(frozen=True)
class Numbers:
    """Numbers from ``low`` to ``high``; subclasses define which ones, and their distribution."""

    kind: ClassVar[str]  # its keyword in a space file
    form: ClassVar[str] = "[low, high]"  # the arguments that follow the keyword
    help: ClassVar[str]  # description for editors
    whole: ClassVar[bool] = False  # integers only
    log: ClassVar[bool] = False  # evenly spread in the logarithm
    low: float
    high: float

    def __post_init__(self) -> None:
        for number in self.arguments if self.whole else ():
            if not _is_integer(number):
                raise SpaceError(f"{self.kind} takes integers, got {_show(number)}")
            if abs(number) > _INT64_MAX:
                raise SpaceError(f"{self.kind} takes 64-bit numbers, got more than 18 digits")
        ends = f"[{_show(self.low)}, {_show(self.high)}]"
        if self.low == self.high:
            value = _show(self.low)
            raise SpaceError(f"{self.kind} {ends} has one value; write {value} without a range")
        if not self.low < self.high:
            raise SpaceError(f"{self.kind} needs low below high, got {ends}")
        if not math.isfinite(float(self.high) - float(self.low)):
            raise SpaceError(f"{self.kind} {ends} is too wide for a 64-bit number")
        if self.log and self.low <= 0:
            raise SpaceError(f"{self.kind} needs low above 0, got {_show(self.low)}")

    @property
    def arguments(self) -> tuple[float, ...]:
        """Arguments of the range in a space file."""
        return astuple(self)

    @property
    def num_values(self) -> int | None:
        """Number of values, or None if the range is continuous."""
        return int(self.high) - int(self.low) + 1 if self.whole else None

    def values(self) -> Sequence[float]:
        """Return all values, ascending; raise ``SpaceError`` if the range is continuous."""
        if not self.whole:
            raise SpaceError(f"{self.kind} {list(self.arguments)} is continuous: no list")
        return range(int(self.low), int(self.high) + 1)

    def sample(self, rng: np.random.Generator) -> float:
        """Draw one value."""
        if self.whole and not self.log:
            return int(rng.integers(int(self.low), int(self.high), endpoint=True))
        if not self.log:
            return min(float(rng.uniform(self.low, self.high)), self.high)
        # An integer n has the log-width of [n - 1/2, n + 1/2], so that both ends are reached.
        margin = 0.5 if self.whole else 0.0
        drawn = math.exp(rng.uniform(math.log(self.low - margin), math.log(self.high + margin)))
        rounded = round(drawn) if self.whole else drawn
        return min(max(rounded, self.low), self.high)  # exp(log(x)) can round past x

    def settle(self, value: object) -> float:
        """Return the exact value of the range that is closest to a sampler's ``value``.

        Samplers return steps as ``0.30000000000000004`` and integers as ``1024.0``; they become
        ``0.3`` and ``1024``.

        Raises:
            SpaceError: ``value`` does not belong to the range.
        """
        number = value if _is_number(value) else math.nan
        own = self._own(number) if self.low <= number <= self.high else None
        if own is None:
            raise _foreign(self, value)
        return own

    def _own(self, value: float) -> float | None:
        if not self.whole:
            return float(value)
        return int(value) if value == int(value) else None


class Uniform(Numbers):
    """Real numbers, evenly spread."""

    kind = "uniform"
    help = "[low, high]: any number between."


class LogUniform(Numbers):
    """Real numbers, evenly spread in the logarithm."""

    kind = "log_uniform"
    help = "[low, high]: any number between, evenly spread in the logarithm."
    log = True


class Integer(Numbers):
    """Integers, each equally likely."""

    kind = "integer"
    help = "[low, high]: any integer between, both ends included."
    whole = True


class LogInteger(Numbers):
    """Integers, evenly spread in the logarithm."""

    kind = "log_integer"
    help = "[low, high]: integers, evenly spread in the logarithm."
    whole = True
    log = True


@dataclass(frozen=True)
class Quantized(Numbers):
    """``low``, ``low + step``, ... ``high``, equally likely; integers if all three are."""

    kind = "quantized"
    form = "[low, high, step]"
    help = "[low, high, step]: low, low + step, ... high."
    step: float

    def __post_init__(self) -> None:
        Numbers.__post_init__(self)
        low, high, step = self.arguments
        if step <= 0:
            raise SpaceError(f"quantized needs a step above 0, got {_show(step)}")
        if not (steps := (float(high) - float(low)) / step) <= _MAX_STEPS:
            raise SpaceError(f"quantized makes {steps:.3g} values; at most {_MAX_STEPS} allowed")
        count, rest = divmod(_exact(high) - _exact(low), _exact(step))
        if rest:
            reached = float(_exact(low) + count * _exact(step))
            raise SpaceError(
                f"steps of {step} from {low} do not reach {high} (both ends belong to a range); "
                f"write {reached} or {reached + step} as the upper end"
            )

    @property
    def num_values(self) -> int:
        """Number of values, both ends included."""
        return int((_exact(self.high) - _exact(self.low)) / _exact(self.step)) + 1

    def values(self) -> Sequence[float]:
        """Return all values, ascending."""
        return tuple(self._value_at(index) for index in range(self.num_values))

    def sample(self, rng: np.random.Generator) -> float:
        """Draw one value."""
        return self._value_at(int(rng.integers(self.num_values)))

    def _value_at(self, index: int) -> float:
        # Decimal, so that 0.1 + 2 * 0.1 is 0.3 and the last value is exactly the upper end.
        exact = _exact(self.low) + index * _exact(self.step)
        return int(exact) if all(map(_is_integer, self.arguments)) else float(exact)

    def _own(self, value: float) -> float | None:
        own = self._value_at(round((float(value) - self.low) / self.step))
        return own if abs(own - float(value)) <= 1e-6 * self.step else None


@dataclass(frozen=True)
class Options:
    """One of several values; an option that is a block of settings is listed by its label."""

    kind: ClassVar[str]
    form: ClassVar[str] = "a list of options"
    help: ClassVar[str]
    arguments: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        if not self.arguments:
            raise SpaceError(f"{self.kind} needs at least one option, got an empty list")
        for index, option in enumerate(self.arguments):
            if any(_same(option, earlier) for earlier in self.arguments[:index]):
                raise SpaceError(f"{self.kind} lists {_show(option)} twice")

    @property
    def num_values(self) -> int:
        """Number of options."""
        return len(self.arguments)

    def values(self) -> Sequence[Scalar]:
        """Return all options, in the order of the file."""
        return self.arguments

    def sample(self, rng: np.random.Generator) -> Scalar:
        """Draw one option."""
        return self.arguments[int(rng.integers(len(self.arguments)))]

    def settle(self, value: object) -> Scalar:
        """Return the option that equals ``value``; raise ``SpaceError`` if there is none."""
        for option in self.arguments:
            if _same(value, option):
                return option
        raise _foreign(self, value)


class Choice(Options):
    """One of the options."""

    kind = "choice"
    help = "One of these; an alternative may be a block with ranges of its own."


class Grid(Options):
    """Options that the grid algorithm visits one by one; other algorithms draw from them."""

    kind = "grid"
    help = "One of these; the grid algorithm visits all."


Range: TypeAlias = Numbers | Options

KINDS: dict[str, type[Numbers | Options]] = {
    range_class.kind: range_class
    for range_class in (Uniform, LogUniform, Integer, LogInteger, Quantized, Choice, Grid)
}
"""Range classes by their keyword in a space file."""


def make_range(kind: str, arguments: Sequence[Scalar]) -> Range:
    """Build the range that a space file writes as ``{kind: arguments}``.

    Raises:
        SpaceError: The arguments do not fit the kind.
    """
    range_class = KINDS[kind]
    if issubclass(range_class, Options):
        return range_class(tuple(arguments))
    if len(arguments) != range_class.form.count(",") + 1:
        raise SpaceError(f"{kind} takes {range_class.form}, got {len(arguments)} values")
    for argument in arguments:
        if not _is_number(argument):
            raise SpaceError(f"{kind} takes numbers, got {_show(argument)}")
    continuous = range_class in (Uniform, LogUniform)
    return range_class(*map(float, arguments) if continuous else arguments)  # type: ignore[arg-type]


def _foreign(range_: Range, value: object) -> SpaceError:
    return SpaceError(f"{_show(value)} is not in {range_.kind} {list(range_.arguments)}")


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _same(value: object, option: Scalar) -> bool:
    # True equals 1 in Python, but not in a space file.
    return value == option and isinstance(value, bool) == isinstance(option, bool)


def _exact(number: float) -> Decimal:
    return Decimal(repr(number))


def _show(value: object) -> str:
    if isinstance(value, float) and value == round(value, 3):
        return f"{value:g}"
    return shorten(json.dumps(value, default=str))
