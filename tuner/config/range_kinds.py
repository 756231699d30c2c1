"""Ranges that a hyperparameter is drawn from; both ends of each belong to it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from tuner.errors import SpaceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

Scalar: TypeAlias = bool | int | float | str | None

_INT64_MAX = 2**63 - 1  # numpy draws 64-bit integers
_MAX_STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Uniform:
    """Real numbers from ``low`` to ``high``, evenly spread."""

    kind: ClassVar[str] = "uniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        _check_ordered(self.kind, self.low, self.high)

    def sample(self, rng: np.random.Generator) -> float:
        """Draw one value."""
        return min(float(rng.uniform(self.low, self.high)), self.high)


@dataclass(frozen=True, slots=True)
class LogUniform:
    """Real numbers from ``low`` to ``high``, evenly spread in the logarithm."""

    kind: ClassVar[str] = "log_uniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        _check_ordered(self.kind, self.low, self.high)
        _check_positive(self.kind, self.low)

    def sample(self, rng: np.random.Generator) -> float:
        """Draw one value."""
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return min(max(drawn, self.low), self.high)  # exp(log(x)) can round past x


@dataclass(frozen=True, slots=True)
class Integer:
    """Whole numbers from ``low`` to ``high``, each equally likely."""

    kind: ClassVar[str] = "integer"
    low: int
    high: int

    def __post_init__(self) -> None:
        _check_integers(self.kind, self.low, self.high)
        _check_ordered(self.kind, self.low, self.high)

    def values(self) -> Sequence[Scalar]:
        """All values, ascending."""
        return range(self.low, self.high + 1)

    def sample(self, rng: np.random.Generator) -> int:
        """Draw one value."""
        return int(rng.integers(self.low, self.high, endpoint=True))


@dataclass(frozen=True, slots=True)
class LogInteger:
    """Whole numbers from ``low`` to ``high``, spread evenly in the logarithm."""

    kind: ClassVar[str] = "log_integer"
    low: int
    high: int

    def __post_init__(self) -> None:
        _check_integers(self.kind, self.low, self.high)
        _check_ordered(self.kind, self.low, self.high)
        _check_positive(self.kind, self.low)

    def values(self) -> Sequence[Scalar]:
        """All values, ascending."""
        return range(self.low, self.high + 1)

    def sample(self, rng: np.random.Generator) -> int:
        """Draw one value: n has the log-width of [n - 1/2, n + 1/2], so both ends are reached."""
        drawn = math.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
        return min(max(round(drawn), self.low), self.high)


@dataclass(frozen=True, slots=True)
class Quantized:
    """``low``, ``low + step``, ... ``high``, equally likely; whole numbers when all three are."""

    kind: ClassVar[str] = "quantized"
    low: float
    high: float
    step: float

    def __post_init__(self) -> None:
        _check_ordered(self.kind, self.low, self.high)
        if not _is_number(self.step) or self.step <= 0:
            raise SpaceError(f"quantized needs a step above 0, got {_show(self.step)}")
        steps = (float(self.high) - float(self.low)) / self.step
        if not steps <= _MAX_STEPS:
            raise SpaceError(
                f"quantized makes {steps:.3g} values; at most {_MAX_STEPS} are allowed"
            )
        count, rest = divmod(_exact(self.high) - _exact(self.low), _exact(self.step))
        if rest:
            reached = float(_exact(self.low) + count * _exact(self.step))
            raise SpaceError(
                f"steps of {self.step} from {self.low} do not reach {self.high} (both ends "
                f"belong); write {reached} or {reached + self.step} as the upper end"
            )

    def values(self) -> Sequence[Scalar]:
        """All values, ascending."""
        return tuple(self.value_at(index) for index in range(self.num_values))

    def sample(self, rng: np.random.Generator) -> float:
        """Draw one value."""
        return self.value_at(int(rng.integers(self.num_values)))

    def value_at(self, index: int) -> float:
        """The value ``index`` steps above ``low``."""
        # Decimal, so that 0.1 + 2 * 0.1 is 0.3 and the last value is exactly the upper end.
        exact = _exact(self.low) + index * _exact(self.step)
        whole = all(_is_integer(number) for number in (self.low, self.high, self.step))
        return int(exact) if whole else float(exact)

    @property
    def num_values(self) -> int:
        """How many values there are, both ends counted."""
        return int((_exact(self.high) - _exact(self.low)) / _exact(self.step)) + 1


@dataclass(frozen=True, slots=True)
class Choice:
    """One of ``options``; an option that is a block of settings stands here as its label."""

    kind: ClassVar[str] = "choice"
    options: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        _check_options(self.kind, self.options)

    def sample(self, rng: np.random.Generator) -> Scalar:
        """Draw one option."""
        return self.options[int(rng.integers(len(self.options)))]


@dataclass(frozen=True, slots=True)
class Grid:
    """Options that the grid algorithm visits one by one; other algorithms draw from them."""

    kind: ClassVar[str] = "grid"
    options: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        _check_options(self.kind, self.options)

    def sample(self, rng: np.random.Generator) -> Scalar:
        """Draw one option."""
        return self.options[int(rng.integers(len(self.options)))]


Range: TypeAlias = Uniform | LogUniform | Integer | LogInteger | Quantized | Choice | Grid


def arguments_of(range_: Range) -> tuple[Scalar, ...]:
    """The list that stands behind the kind in a space file."""
    if isinstance(range_, Choice | Grid):
        return range_.options
    step = (range_.step,) if isinstance(range_, Quantized) else ()
    return (range_.low, range_.high, *step)


def ends_of(range_: Range) -> tuple[Scalar, Scalar]:
    """The lowest and the highest value; the first and the last option."""
    if isinstance(range_, Choice | Grid):
        return (range_.options[0], range_.options[-1])
    return (range_.low, range_.high)


def count_values(range_: Range) -> int | None:
    """How many values a range has; None when it is continuous."""
    match range_:
        case Uniform() | LogUniform():
            return None
        case Integer() | LogInteger():
            return range_.high - range_.low + 1
        case Quantized():
            return range_.num_values
    return len(range_.options)


def discrete_values(range_: Range) -> Sequence[Scalar]:
    """List the values of a range that has finitely many.

    Raises:
        SpaceError: The range is continuous.
    """
    if isinstance(range_, Uniform | LogUniform):
        raise SpaceError(f"{range_.kind} {list(arguments_of(range_))} is continuous: no list")
    return range_.options if isinstance(range_, Choice | Grid) else range_.values()


def settle(range_: Range, value: object) -> Scalar:
    """Find the value of a range that ``value`` stands for.

    Samplers hand out steps as ``0.30000000000000004`` and whole steps as ``1024.0``; here they
    become the range's own ``0.3`` and ``1024``.

    Raises:
        SpaceError: ``value`` does not belong to the range.
    """
    if isinstance(range_, Choice | Grid):
        for option in range_.options:
            if _is_option(value, (option,)):
                return option
    elif _is_number(value) and range_.low <= value <= range_.high:  # type: ignore[operator]
        number = float(value)  # type: ignore[arg-type]
        if isinstance(range_, Uniform | LogUniform):
            return number
        if isinstance(range_, Integer | LogInteger):
            if number == int(number):
                return int(value)  # type: ignore[call-overload,no-any-return]
        else:
            own = range_.value_at(round((number - range_.low) / range_.step))
            if abs(own - number) <= 1e-6 * range_.step:
                return own
    raise SpaceError(f"{_show(value)} is not in {range_.kind} {list(arguments_of(range_))}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_option(value: object, options: tuple[Scalar, ...]) -> bool:
    # True equals 1 in Python, but not in a space file.
    return any(value == o and isinstance(value, bool) == isinstance(o, bool) for o in options)


def _exact(number: float) -> Decimal:
    return Decimal(repr(number))


def _show(value: object) -> str:
    if isinstance(value, float) and value == round(value, 3):
        return f"{value:g}"
    return json.dumps(value, default=str)[:60]


def _check_ordered(kind: str, low: float, high: float) -> None:
    ends = f"[{_show(low)}, {_show(high)}]"
    if low == high:
        raise SpaceError(f"{kind} {ends} holds one value; write {_show(low)} without a range")
    if not low < high:
        raise SpaceError(f"{kind} needs low below high, got {ends}")
    if not math.isfinite(float(high) - float(low)):
        raise SpaceError(f"{kind} {ends} is too wide for a 64-bit number")


def _check_positive(kind: str, low: float) -> None:
    if low <= 0:
        raise SpaceError(f"{kind} needs a lower end above 0, got {_show(low)}")


def _check_integers(kind: str, *numbers: object) -> None:
    for number in numbers:
        if not _is_integer(number):
            raise SpaceError(f"{kind} takes whole numbers, got {_show(number)}")
        if abs(number) > _INT64_MAX:  # type: ignore[arg-type]
            raise SpaceError(f"{kind} takes 64-bit numbers, got one of more than 18 digits")


def _check_options(kind: str, options: tuple[Scalar, ...]) -> None:
    if not options:
        raise SpaceError(f"{kind} needs at least one option, got an empty list")
    for index, option in enumerate(options):
        if _is_option(option, options[:index]):
            raise SpaceError(f"{kind} lists {_show(option)} twice")
