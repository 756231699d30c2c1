"""Values looked up in the document of a space file, before it is read as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from tuner.config.ranges import KINDS
from tuner.config.schema import block_at
from tuner.config.yaml_text import Scalar, ScalarError, read_scalar


def node_at(root: yaml.Node, setting: str) -> yaml.Node | None:
    """Return the node of a setting by its dotted path, or None if it is not written."""
    node: yaml.Node | None = root
    for piece in setting.split("."):
        entries = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for key, value in entries if key.value == piece), None)
    return node


def arguments_of(node: yaml.Node | None) -> list[yaml.Node]:
    """Return the bounds or options of a range; nothing if the node is no range."""
    for kind, arguments in node.value if isinstance(node, yaml.MappingNode) else ():
        if kind.value in KINDS and isinstance(arguments, yaml.SequenceNode):
            return list(arguments.value)
    return []


def value_at(root: yaml.Node, setting: str) -> Scalar:
    """Return the value of a setting, or the first one of its range; None for anything else."""
    return next(iter(values_at(root, setting)), None)


def values_at(root: yaml.Node, setting: str) -> list[Scalar]:
    """Return the value of a setting, or those of its range; None for what is not a value."""
    node = node_at(root, setting)
    written: list[yaml.Node | None] = [*arguments_of(node)] or [node]
    return [_scalar(one) for one in written]


def _scalar(node: yaml.Node | None) -> Scalar:
    try:
        return read_scalar(node) if isinstance(node, yaml.ScalarNode) else None
    except ScalarError:
        return None


def number_at(root: yaml.Node, setting: str) -> Any:
    """Return the value of a setting if it is a positive number, else its default."""
    value = value_at(root, setting)
    if isinstance(value, int | float) and value > 0:
        return value
    *block, name = setting.split(".")
    settings = block_at(tuple(block), {})
    return settings.model_fields[name].default if settings else None


def nodes_below(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Yield a node and all that it holds, without the keys."""
    pending = [root]
    while pending:
        if (node := pending.pop()) is not None:
            yield node
        if isinstance(node, yaml.MappingNode):
            pending += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            pending += node.value


def mentions(root: yaml.Node, setting: str, word: str) -> bool:
    """Return True if a word stands anywhere in the value of a setting."""
    below = nodes_below(node_at(root, setting))
    return any(isinstance(one, yaml.ScalarNode) and one.value == word for one in below)
