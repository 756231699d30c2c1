"""The tree of a space file: blocks, values and ranges, each with its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tuner.config.range_kinds import arguments_of, count_values, ends_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tuner.config.range_kinds import Range, Scalar
    from tuner.config.yaml_nodes import Mark

Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A plain value; ``valid`` is false when its problem has been reported already."""

    value: Scalar
    mark: Mark = field(compare=False)
    valid: bool = True


@dataclass(frozen=True, slots=True)
class Items:
    """A list of values, such as the folds of a split."""

    items: tuple[Tree, ...]
    mark: Mark = field(compare=False)


@dataclass(frozen=True, slots=True)
class Block:
    """Settings by name; ``key_marks`` says where each name stands."""

    entries: Mapping[str, Tree]
    mark: Mark = field(compare=False)
    key_marks: Mapping[str, Mark] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Open:
    """A setting that is still open: a range, and what hangs on each option of a choice.

    Attributes:
        name: Name of the parameter, such as ``model.cnn.blocks``.
        range: The values; an option that is a block or a range stands there as its label.
        branches: By label, the alternatives that are blocks or ranges themselves.
        mark: Place of the range.
        argument_marks: Places of its bounds or options.
    """

    name: str
    range: Range
    branches: Mapping[str, Tree]
    mark: Mark = field(compare=False)
    argument_marks: tuple[Mark, ...] = field(compare=False)

    def mark_of(self, value: Scalar) -> Mark:
        """Where ``value`` is written: the place of the bound or option, else of the range."""
        arguments = arguments_of(self.range)
        places = zip(arguments, self.argument_marks, strict=True)
        return next((mark for argument, mark in places if argument == value), self.mark)


Tree: TypeAlias = Leaf | Items | Block | Open
Choose: TypeAlias = "Callable[[Open, Path], Scalar]"


class Invalid:
    """Stands for a value whose problem has been reported; fits no setting."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting was written.

    Attributes:
        path: Path as shown to the user, with the label of each alternative taken.
        key_mark: Place of its name.
        mark: Place of its value.
        valid: False when its value has been reported already.
        kind: Kind of the range that the value was drawn from, or None.
    """

    path: str
    key_mark: Mark
    mark: Mark
    valid: bool = True
    kind: str | None = None


@dataclass(slots=True)
class Draw:
    """One pass through the tree: plain values, what was drawn, and where each was written."""

    values: Any = None
    params: dict[str, Scalar] = field(default_factory=dict)
    origins: dict[tuple[str | int, ...], Origin] = field(default_factory=dict)


def draw(tree: Tree, choose: Choose) -> Draw:
    """Walk the tree and ask for the value of each open setting on the way.

    Only the ranges of the alternatives that were taken are asked for, in the order of the file.

    Args:
        tree: The tree.
        choose: Called with the open setting and its path in the experiment.
    """
    result = Draw()
    root = Origin("", tree.mark, tree.mark)
    result.values = _draw(tree, (), root, _Walk(choose, result))
    return result


@dataclass(frozen=True, slots=True)
class _Walk:
    choose: Choose
    result: Draw


def _draw(tree: Tree, at: tuple[str | int, ...], origin: Origin, walk: _Walk) -> Any:
    if isinstance(tree, Open):
        where = tuple(str(piece) for piece in at)
        value = walk.choose(tree, where)
        walk.result.params[tree.name] = value
        mark = tree.mark_of(value)
        branch = tree.branches.get(value) if isinstance(value, str) else None
        if branch is not None:
            inner = Origin(f"{tree.name}.{value}", origin.key_mark, branch.mark)
            return _draw(branch, at, inner, walk)
        walk.result.origins[at] = Origin(tree.name, origin.key_mark, mark, kind=tree.range.kind)
        return value
    walk.result.origins[at] = origin
    if isinstance(tree, Leaf):
        return tree.value if tree.valid else Invalid()
    if isinstance(tree, Items):
        drawn = []
        for index, item in enumerate(tree.items):
            inner = _leaf_origin(item, f"{origin.path}.{index}", item.mark)
            drawn.append(_draw(item, (*at, index), inner, walk))
        return drawn
    values = {}
    for key, entry in tree.entries.items():
        path = f"{origin.path}.{key}" if origin.path else key
        inner = _leaf_origin(entry, path, tree.key_marks[key])
        values[key] = _draw(entry, (*at, key), inner, walk)
    return values


def _leaf_origin(tree: Tree, path: str, key_mark: Mark) -> Origin:
    valid = tree.valid if isinstance(tree, Leaf) else True
    return Origin(path, key_mark, tree.mark, valid)


def every_draw(tree: Tree, values_of: Callable[[Open, Path], Sequence[Scalar]]) -> Iterator[Draw]:
    """Walk the tree once for every combination of the values of its open settings.

    Args:
        tree: The tree.
        values_of: The values to try for an open setting at a path; at least one.
    """
    fixed: list[int] = []  # an odometer: which value each of the first open settings takes
    while True:
        taken: list[tuple[int, int]] = []

        yield draw(tree, _odometer(values_of, fixed, taken))
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        if not taken:
            return
        fixed = [index for index, _ in taken]
        fixed[-1] += 1


def _odometer(
    values_of: Callable[[Open, Path], Sequence[Scalar]],
    fixed: Sequence[int],
    taken: list[tuple[int, int]],
) -> Choose:
    """Make a chooser that follows ``fixed``, then takes first values; notes them in ``taken``."""

    def choose(setting: Open, path: Path) -> Scalar:
        values = values_of(setting, path)
        index = fixed[len(taken)] if len(taken) < len(fixed) else 0
        taken.append((index, len(values)))
        return values[index]

    return choose


@dataclass(frozen=True, slots=True)
class OpenAt:
    """An open setting, its path in the experiment, and the choices that lead to it."""

    setting: Open
    path: Path
    context: Mapping[str, Scalar]


def open_settings(
    tree: Tree, path: Path = (), context: Mapping[str, Scalar] | None = None
) -> Iterator[OpenAt]:
    """List all open settings, those of every alternative included, in the order of the file."""
    context = context or {}
    if isinstance(tree, Block):
        for key, entry in tree.entries.items():
            yield from open_settings(entry, (*path, key), context)
    elif isinstance(tree, Open):
        yield OpenAt(tree, path, context)
        for label, branch in tree.branches.items():
            yield from open_settings(branch, path, {**context, tree.name: label})


def count_draws(tree: Tree) -> int | None:
    """Count the combinations of all open settings; None when one of them is continuous."""
    if isinstance(tree, Block):
        total = 1
        for entry in tree.entries.values():
            count = count_draws(entry)
            if count is None:
                return None
            total *= count
        return total
    if not isinstance(tree, Open):
        return 1
    num_values = count_values(tree.range)
    if num_values is None:
        return None
    total = num_values - len(tree.branches)
    for branch in tree.branches.values():
        count = count_draws(branch)
        if count is None:
            return None
        total += count
    return total


def first_value(setting: Open) -> Scalar:
    """The first option of a choice, the lower end of another range."""
    return ends_of(setting.range)[0]


def with_choices(chosen: Mapping[str, Scalar]) -> Choose:
    """Make a chooser that takes ``chosen`` where it says something, else the first value."""

    def choose(setting: Open, _: Path) -> Scalar:
        return chosen.get(setting.name, first_value(setting))

    return choose
