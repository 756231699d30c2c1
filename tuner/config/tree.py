"""The tree of a space file: blocks, values and ranges, each with its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tuner.config.yaml_text import Mark, Scalar, write_scalar

if TYPE_CHECKING:
    from tuner.config.ranges import Range

Path: TypeAlias = tuple[str, ...]


class Invalid:
    """Placeholder for a value whose problem has been reported; it fits no setting."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A plain value."""

    value: Scalar | Invalid
    mark: Mark = field(compare=False)


@dataclass(frozen=True, slots=True)
class Items:
    """A list of values, such as the folds of a split."""

    items: tuple[Tree, ...]
    mark: Mark = field(compare=False)


@dataclass(frozen=True, slots=True)
class Block:
    """Settings by name; ``key_marks`` holds the place of each name."""

    entries: Mapping[str, Tree]
    mark: Mark = field(compare=False)
    key_marks: Mapping[str, Mark] = field(compare=False)

    def draw(self, choose: Choose) -> Draw:
        """Walk the tree and choose the value of each open setting on the way.

        Args:
            choose: Function that returns a value of an open setting. It is called in the order of
                the file, and only for the ranges of the alternatives that were taken.
        """
        params: dict[str, Scalar] = {}

        def value_of(part: Tree) -> Any:
            if isinstance(part, Open):
                value = params[part.name] = choose(part)
                return value_of(branch) if (branch := part.branches.get(value)) else value
            if isinstance(part, Leaf):
                return part.value
            if isinstance(part, Items):
                return [value_of(item) for item in part.items]
            return {key: value_of(entry) for key, entry in part.entries.items()}

        return Draw(self, value_of(self), params)

    def every_draw(self, values_of: Callable[[Open], Sequence[Scalar]]) -> Iterator[Draw]:
        """Walk the tree once for every combination of the values of its open settings.

        Args:
            values_of: Function that returns the values to try for an open setting, at least one.
        """
        taken: list[int] = []  # an odometer: index of the value that each open setting takes
        sizes: list[int] = []

        def choose(setting: Open) -> Scalar:
            values = values_of(setting)
            sizes.append(len(values))
            if len(sizes) > len(taken):
                taken.append(0)
            return values[taken[len(sizes) - 1]]

        while True:
            sizes.clear()
            yield self.draw(choose)
            while taken and taken[-1] + 1 == sizes[len(taken) - 1]:
                taken.pop()
            if not taken:
                return
            taken[-1] += 1

    def count_draws(self) -> int | None:
        """Count the combinations of all open settings, or return None if a range is continuous."""
        if any(setting.range.num_values is None for setting, _ in open_settings(self)):
            return None
        return _count(self)

    def text(self, comments: Mapping[str, str] | None = None) -> str:
        """Write the tree as the text of a space file, one setting of a block per line.

        Args:
            comments: Comments at the end of lines, by the dotted paths of settings.
        """
        ends = {path: f"  # {comment}" for path, comment in (comments or {}).items()}
        lines: list[str] = []
        for key, entry in self.entries.items():
            name, end = write_scalar(key), ends.get(key, "")
            if isinstance(entry, Block) and entry.entries:
                lines.append(f"{name}:")
                lines += [
                    f"  {write_scalar(k)}: {write(v)}{ends.get(f'{key}.{k}', '')}"
                    for k, v in entry.entries.items()
                ]
            elif isinstance(entry, Open):
                lines += [f"{name}:{end}", f"  {entry.range.kind}:"]
                lines += [f"    - {option}" for option in _options(entry)]
                lines += [f"  default: {write(entry.default)}"] if entry.default else []
            else:
                lines.append(f"{name}: {write(entry)}{end}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Open:
    """A setting with a range, and the alternatives of a choice between blocks.

    Attributes:
        name: Name of the parameter, such as ``model.cnn.blocks``.
        path: Path of the setting in the experiment, such as ``("model", "blocks")``.
        range: The range; an option that is a block or a range is listed by its label.
        branches: The alternatives that are blocks or ranges themselves, by label.
        mark: Place of the range.
        argument_marks: Places of its bounds or options.
        default: The value that is probably good; None if the file names none.
    """

    name: str
    path: Path
    range: Range
    branches: Mapping[Scalar, Tree]
    mark: Mark = field(compare=False)
    argument_marks: tuple[Mark, ...] = field(compare=False)
    default: Leaf | None = None

    @property
    def first(self) -> Scalar:
        """First option of a choice, the lower end of another range."""
        return self.range.arguments[0]


Tree: TypeAlias = Leaf | Items | Block | Open
Choose: TypeAlias = "Callable[[Open], Scalar]"


@dataclass(frozen=True, slots=True)
class Origin:
    """The place where a setting was written.

    Attributes:
        path: Path shown to the user, with the label of each alternative taken.
        key_mark: Place of its name.
        mark: Place of its value.
        kind: Kind of the range that the value was drawn from, or None.
    """

    path: str
    key_mark: Mark
    mark: Mark
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Draw:
    """One pass through a tree.

    Attributes:
        tree: The tree.
        values: Plain values of all settings.
        params: Drawn values by the names of their parameters, in the order of the file.
    """

    tree: Block
    values: Any
    params: dict[str, Scalar]

    def locate(self, path: Sequence[str | int]) -> Origin | None:
        """Return where a setting of the experiment was written, or None if it was not."""
        tree: Tree = self.tree
        shown, key_mark, rest = "", tree.mark, list(path)
        while True:
            if isinstance(tree, Open):
                value = self.params[tree.name]
                if branch := tree.branches.get(value):
                    shown, tree = f"{tree.name}.{value}", branch
                    continue
                marks = zip(tree.range.arguments, tree.argument_marks, strict=True)
                mark = next((mark for argument, mark in marks if argument == value), tree.mark)
                return None if rest else Origin(tree.name, key_mark, mark, kind=tree.range.kind)
            if not rest:
                return Origin(shown, key_mark, tree.mark)
            key = rest.pop(0)
            if isinstance(tree, Block) and key in tree.entries:
                key_mark, tree = tree.key_marks[str(key)], tree.entries[str(key)]
            elif isinstance(tree, Items) and isinstance(key, int):
                tree = tree.items[key]
                key_mark = tree.mark
            else:
                return None
            shown = f"{shown}.{key}" if shown else str(key)


def open_settings(
    tree: Tree, context: Mapping[str, Scalar] | None = None
) -> Iterator[tuple[Open, Mapping[str, Scalar]]]:
    """List all open settings in the order of the file, and the choices that lead to each."""
    context = context or {}
    if isinstance(tree, Block):
        for entry in tree.entries.values():
            yield from open_settings(entry, context)
    elif isinstance(tree, Open):
        yield tree, context
        for label, branch in tree.branches.items():
            yield from open_settings(branch, {**context, tree.name: label})


def _count(tree: Tree) -> int:
    if isinstance(tree, Block):
        return math.prod(map(_count, tree.entries.values()))
    if isinstance(tree, Open):
        plain = (tree.range.num_values or 0) - len(tree.branches)
        return plain + sum(map(_count, tree.branches.values()))
    return 1


def with_choices(chosen: Mapping[str, Scalar]) -> Choose:
    """Return a chooser that takes the value in ``chosen``, else the first value."""
    return lambda setting: chosen.get(setting.name, setting.first)


def write(tree: Tree) -> str:
    """Write a part of a tree on one line."""
    if isinstance(tree, Leaf):
        return write_scalar(tree.value)
    if isinstance(tree, Items):
        return f"[{', '.join(map(write, tree.items))}]"
    if isinstance(tree, Open):
        default = f", default: {write(tree.default)}" if tree.default else ""
        return f"{{{tree.range.kind}: [{', '.join(_options(tree))}]{default}}}"
    entries = (f"{write_scalar(key)}: {write(entry)}" for key, entry in tree.entries.items())
    return f"{{{', '.join(entries)}}}"


def _options(tree: Open) -> Iterator[str]:
    for argument in tree.range.arguments:
        branch = tree.branches.get(argument)
        yield write(branch) if branch else write_scalar(argument)
