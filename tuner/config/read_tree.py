"""Turn the YAML nodes of a space file into a tree of values, blocks and ranges."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import yaml

from pipelines.plain_text import shorten
from tuner.config.ranges import KINDS, Options, Range, make_range
from tuner.config.tree import Block, Invalid, Items, Leaf, Open, Path, Tree
from tuner.config.yaml_text import Mark, Scalar, ScalarError, mark_of, read_scalar
from tuner.errors import Problem, SpaceError

if TYPE_CHECKING:
    Entries: TypeAlias = dict[str, tuple[Mark, yaml.Node]]  # by key, with the place of the key

RANGE_BLOCKS = ("features", "model", "optim", "augment", "train")
LIST_SETTINGS = (("features", "network"),)
"""Settings of which an option of a choice may be a list."""
RANGE_SETTINGS = (("data", "clip_seconds"), ("data", "clips_per_track"), ("data", "hop_seconds"))
_WHERE_RANGES_CAN_BE = (
    f"in {', '.join(RANGE_BLOCKS)} and for {', '.join('.'.join(path) for path in RANGE_SETTINGS)}"
)
MAX_OPTIONS = 1_000
DEFAULT = "default"
"""Key beside that of a range: the value that is probably good."""


def read_tree(root: yaml.MappingNode) -> tuple[Block, list[Problem]]:
    """Read a tree from nodes.

    Args:
        root: The top of the document.

    Returns:
        The tree, and the problems of its scalars, keys and ranges; each of them leaves an invalid
        leaf in the tree.
    """
    reader = _Reader()
    entries = reader.entries(root, "")
    entries.pop("$schema", None)
    if root.tag:
        reader.invalid(mark_of(root), "", _unsupported_tag(root))
    return reader.block(entries, mark_of(root), (), ""), reader.problems


def _can_be_range(path: Path) -> bool:
    is_open = path[0] in RANGE_BLOCKS and "resources" not in path
    return is_open or path in RANGE_SETTINGS


@dataclass(slots=True)
class _Reader:
    problems: list[Problem] = field(default_factory=list)

    def entries(self, node: yaml.MappingNode, name: str) -> Entries:
        """Return the values of a mapping by key, each with the place of its key."""
        found: Entries = {}
        for key_node, value in node.value:
            key, mark = key_node.value, mark_of(key_node)
            if key in found:
                first = found[key][0].line
                message = f"duplicate key, first on line {first}; remove one of them"
                self.invalid(mark, _join(name, key), message)
            else:
                found[key] = (mark, value)
        return found

    def block(self, entries: Entries, mark: Mark, path: Path, name: str) -> Block:
        made = {
            key: self.tree(node, (*path, key), _join(name, key))
            for key, (_, node) in entries.items()
        }
        return Block(made, mark, {key: key_mark for key, (key_mark, _) in entries.items()})

    def tree(self, node: yaml.Node, path: Path, name: str) -> Tree:
        """Read a node.

        Args:
            node: The node.
            path: Path of the setting in the experiment.
            name: Path shown to the user, with the labels of the alternatives that lead here.
        """
        mark = mark_of(node)
        if node.tag:
            return self.invalid(mark, name, _unsupported_tag(node))
        if isinstance(node, yaml.ScalarNode):
            try:
                return Leaf(read_scalar(node), mark)
            except ScalarError as error:
                return self.invalid(mark, name, str(error))
        if isinstance(node, yaml.SequenceNode):
            items = [
                self.tree(item, (*path, str(index)), f"{name}.{index}")
                for index, item in enumerate(node.value)
            ]
            return Items(tuple(items), mark)
        assert isinstance(node, yaml.MappingNode)
        entries = self.entries(node, name)
        kind = next((key for key in entries if key in KINDS), None)
        if kind is not None:
            return self.read_range(kind, entries, path, name)
        if entries and len(entries.keys() - {DEFAULT}) <= 1 and _can_be_range(path):
            (key, (key_mark, inner)), *_ = entries.items()
            near = difflib.get_close_matches(key[:64], KINDS, n=1, cutoff=0.4)
            # A single key with a list, such as ``{lognormal: [..]}``, is a misspelled range.
            is_list = (*path, key) in LIST_SETTINGS
            if near and isinstance(inner, yaml.SequenceNode) and not is_list:
                message = f"unknown kind of range `{shorten(key)}`; did you mean `{near[0]}`?"
                return self.invalid(key_mark, name, message)
        return self.block(entries, mark, path, name)

    def read_range(self, kind: str, entries: Entries, path: Path, name: str) -> Tree:
        """Read a mapping that has the key of a range."""
        kind_mark, node = entries[kind]
        mark = mark_of(node)
        if others := [key for key in entries if key not in (kind, DEFAULT)]:
            message = f"`{kind}` makes this a range, which has one key, or a `default` beside it"
            message += f"; remove {', '.join(others)}"
            return self.invalid(kind_mark, name, message)
        if not _can_be_range(path):
            message = f"a range is not allowed here, only {_WHERE_RANGES_CAN_BE}"
            return self.invalid(kind_mark, name, message)
        if not isinstance(node, yaml.SequenceNode):
            return self.invalid(mark, name, f"{kind} takes {KINDS[kind].form}, written in [ ]")
        if len(node.value) > MAX_OPTIONS:
            message = f"{len(node.value)} options; at most {MAX_OPTIONS} are allowed"
            return self.invalid(mark, name, message)
        labelled = list(zip(_labels(node.value), node.value, strict=True))
        branches: dict[Scalar, Tree] = {
            label: self.tree(item, path, f"{name}.{label}")
            for label, item in labelled
            if issubclass(KINDS[kind], Options) and _is_alternative(item, path)
        }
        arguments = [
            label if label in branches else self.argument(kind, item, name)
            for label, item in labelled
        ]
        valid = [a for a in arguments if not isinstance(a, Invalid)]
        if len(valid) < len(arguments):
            return Leaf(Invalid(), mark)
        try:
            made = make_range(kind, valid)
        except SpaceError as error:
            return self.invalid(mark, name, str(error))
        default = self.default(made, entries[DEFAULT][1], name) if DEFAULT in entries else None
        return Open(name, path, made, branches, mark, tuple(map(mark_of, node.value)), default)

    def default(self, made: Range, node: yaml.Node, name: str) -> Leaf:
        """Read the default of a range; that of a choice between blocks is a label."""
        mark, name = mark_of(node), f"{name}.{DEFAULT}"
        try:
            value = read_scalar(node) if isinstance(node, yaml.ScalarNode) else _joined(node)
            if value or isinstance(node, yaml.ScalarNode):
                return Leaf(made.settle(value), mark)
            return self.invalid(mark, name, "a default is one value, or the label of a block")
        except (ScalarError, SpaceError) as error:
            return self.invalid(mark, name, str(error))

    def argument(self, kind: str, node: yaml.Node, name: str) -> Scalar | Invalid:
        """Read a bound or an option that is a plain value."""
        if isinstance(node, yaml.ScalarNode):
            leaf = self.tree(node, (), name)
            assert isinstance(leaf, Leaf)
            return leaf.value
        wanted = "a value or a block" if issubclass(KINDS[kind], Options) else "a number"
        what = "list" if isinstance(node, yaml.SequenceNode) else "block"
        return self.invalid(mark_of(node), name, f"{kind} takes {wanted}, not a {what}").value

    def invalid(self, mark: Mark, name: str, message: str) -> Leaf:
        self.problems.append(mark.problem(name, message))
        return Leaf(Invalid(), mark)


def _unsupported_tag(node: yaml.Node) -> str:
    return f"the tag {shorten(node.tag)!r} is not supported; remove it"


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _is_alternative(item: yaml.Node, path: Path) -> bool:
    """Return True for an option that is a block, or a list where the setting takes one."""
    if isinstance(item, yaml.SequenceNode):
        return path in LIST_SETTINGS
    return isinstance(item, yaml.MappingNode)


def _labels(items: Sequence[yaml.Node]) -> list[str]:
    """Label alternatives by their ``name`` or ``kind``, else by index; repeated labels get #2.

    A list is labelled by its values.
    """
    labels: list[str] = []
    seen: Counter[str] = Counter()
    for index, item in enumerate(items):
        entries = item.value if isinstance(item, yaml.MappingNode) else []
        values = {key.value: value for key, value in entries}
        named = values.get("name", values.get("kind"))
        label = _string(named) or _joined(item) or str(index)
        seen[label] += 1
        labels.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    return labels


def _joined(node: yaml.Node) -> str:
    items = node.value if isinstance(node, yaml.SequenceNode) else []
    return " + ".join(filter(None, map(_string, items)))


def _string(node: yaml.Node | None) -> str | None:
    try:
        value = read_scalar(node) if isinstance(node, yaml.ScalarNode) else None
    except ScalarError:
        return None
    return value if isinstance(value, str) else None
