"""YAML nodes to the tree of a space file: finds the ranges."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tuner.config.ranges import KINDS, make_range
from tuner.config.tree import Block, Items, Leaf, Open
from tuner.config.yaml_nodes import ListNode, MapNode, Node, ScalarNode
from tuner.errors import Problem, SpaceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tuner.config.range_kinds import Scalar
    from tuner.config.tree import Path, Tree
    from tuner.config.yaml_nodes import Mark

RANGE_BLOCKS = ("features", "model", "optim", "augment", "train")
RANGE_SETTINGS = (("data", "clip_seconds"), ("data", "clips_per_track"), ("data", "hop_seconds"))
MAX_OPTIONS = 1_000


def can_be_range(path: Path) -> bool:
    """Tell whether a range may stand at ``path``."""
    return bool(path) and (path[0] in RANGE_BLOCKS or path in RANGE_SETTINGS)


def read_tree(root: MapNode) -> tuple[Block, list[Problem]]:
    """Turn nodes into a tree.

    Args:
        root: The top of the document.

    Returns:
        The tree, and the faults of its ranges. A faulty range becomes an invalid leaf.
    """
    reader = _Reader()
    entries = {key: entry for key, entry in root.entries.items() if key != "$schema"}
    block = reader.block(MapNode(root.mark, entries, root.size), (), "")
    return block, reader.problems


@dataclass(slots=True)
class _Reader:
    problems: list[Problem] = field(default_factory=list)

    def block(self, node: MapNode, path: Path, name: str) -> Block:
        entries = {
            key: self.tree(entry.node, (*path, key), f"{name}.{key}" if name else key)
            for key, entry in node.entries.items()
        }
        return Block(entries, node.mark, {k: e.key_mark for k, e in node.entries.items()})

    def tree(self, node: Node, path: Path, name: str) -> Tree:
        if isinstance(node, ScalarNode):
            return Leaf(node.value, node.mark, node.valid)
        if isinstance(node, ListNode):
            items = (
                self.tree(n, (*path, str(i)), f"{name}.{i}") for i, n in enumerate(node.items)
            )
            return Items(tuple(items), node.mark)
        kinds = [key for key in node.entries if key in KINDS]
        if not kinds:
            return self._block_or_typo(node, path, name)
        kind = kinds[0]
        mark = node.entries[kind].key_mark
        if len(node.entries) > 1:
            others = ", ".join(key for key in node.entries if key != kind)
            message = f"`{kind}` makes this a range, which has one key only; remove {others}"
            return self._invalid(mark, name, message)
        if not can_be_range(path):
            return self._invalid(mark, name, f"a range cannot stand here; {_where_ranges_can()}")
        return self._range(kind, node.entries[kind].node, path, name)

    def _block_or_typo(self, node: MapNode, path: Path, name: str) -> Tree:
        """A mapping ``{lognormal: [..]}``, one word for a list, was meant as a range."""
        if len(node.entries) == 1 and can_be_range(path):
            (key, entry), *_ = node.entries.items()
            if isinstance(entry.node, ListNode):
                near = difflib.get_close_matches(key[:64], KINDS, n=1, cutoff=0.4)
                if near:
                    message = f"unknown kind of range `{key[:64]}`; did you mean `{near[0]}`?"
                    return self._invalid(entry.key_mark, name, message)
        return self.block(node, path, name)

    def _range(self, kind: str, node: Node, path: Path, name: str) -> Tree:
        if not isinstance(node, ListNode):
            form = "a list of options" if kind in ("choice", "grid") else "[low, high]"
            return self._invalid(node.mark, name, f"{kind} takes {form}, written in [ ]")
        if len(node.items) > MAX_OPTIONS:
            message = f"{len(node.items)} options; at most {MAX_OPTIONS} are allowed"
            return self._invalid(node.mark, name, message)
        if kind in ("choice", "grid"):
            arguments, branches = self._alternatives(node, path, name)
        else:
            arguments, branches = self._bounds(node, name, kind), {}
        if arguments is None:
            return Leaf(None, node.mark, valid=False)
        try:
            made = make_range(kind, arguments)
        except SpaceError as error:
            return self._invalid(node.mark, name, str(error))
        return Open(name, made, branches, node.mark, tuple(item.mark for item in node.items))

    def _bounds(self, node: ListNode, name: str, kind: str) -> list[Scalar] | None:
        bounds: list[Scalar] = []
        for item in node.items:
            if not isinstance(item, ScalarNode):
                self._invalid(
                    item.mark, name, f"a bound of {kind} is a number, not a list or block"
                )
                return None
            if not item.valid:
                return None
            bounds.append(item.value)
        return bounds

    def _alternatives(
        self, node: ListNode, path: Path, name: str
    ) -> tuple[list[Scalar] | None, Mapping[str, Tree]]:
        options: list[Scalar] = []
        branches: dict[str, Tree] = {}
        sound = True
        for label, item in zip(_labels(node.items), node.items, strict=True):
            if isinstance(item, ListNode):
                self._invalid(item.mark, name, "an alternative is a value or a block, not a list")
                sound = False
            elif isinstance(item, ScalarNode):
                options.append(item.value)
                sound = sound and item.valid
            else:
                options.append(label)
                branches[label] = self.tree(item, path, f"{name}.{label}")
        return (options if sound else None), branches

    def _invalid(self, mark: Mark, name: str, message: str) -> Leaf:
        self.problems.append(mark.problem(name, message))
        return Leaf(None, mark, valid=False)


def _labels(items: Sequence[Node]) -> list[str]:
    """Name the alternatives by their ``name`` or ``kind``, else by their index.

    Repeated ones get #2, #3.
    """
    labels: list[str] = []
    seen: dict[str, int] = {}
    for index, item in enumerate(items):
        entries = item.entries if isinstance(item, MapNode) else {}
        entry = entries.get("name") or entries.get("kind")
        named = entry.node.value if entry and isinstance(entry.node, ScalarNode) else None
        label = named if isinstance(named, str) else str(index)
        seen[label] = seen.get(label, 0) + 1
        labels.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    return labels


def _where_ranges_can() -> str:
    settings = ", ".join(".".join(path) for path in RANGE_SETTINGS)
    return f"ranges are allowed in {', '.join(RANGE_BLOCKS)} and for {settings}"
