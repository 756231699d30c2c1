"""Overrides from the command line, ``a.b=value``, laid over the nodes of a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tuner.config.ranges import KINDS
from tuner.config.scalars import shorten
from tuner.config.yaml_nodes import Entry, ListNode, MapNode, Mark, Node, ScalarNode, parse
from tuner.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuner.config.range_kinds import Scalar

MAX_PATH_PIECES = 8


def as_override(path: str, value: Scalar) -> str:
    """Write an override whose value is taken as it is, whatever characters it holds."""
    return f"{path}={json.dumps(value, ensure_ascii=False)}"


def apply_overrides(root: MapNode, overrides: Sequence[str]) -> tuple[MapNode, list[Problem]]:
    """Lay overrides over a document, the later ones over the earlier.

    Args:
        root: The top of the document.
        overrides: ``a.b=value`` each; the value is YAML, a leaf or a block.

    Returns:
        The new top, and the faults of the overrides; a faulty override is left out.
    """
    problems: list[Problem] = []
    for override in overrides:
        try:
            path, node, faults = _read(override)
            problems.extend(faults)
            replaced = _replace(root, path, node, _mark(".".join(path)), ())
            assert isinstance(replaced, MapNode)
            root = replaced
        except ConfigError as error:
            problems.extend(error.problems)
    return root, problems


def _read(override: str) -> tuple[list[str], Node, list[Problem]]:
    dotted, equals, text = override.partition("=")
    dotted = dotted.strip()
    path = dotted.split(".")
    mark = _mark(dotted)
    if not equals:
        message = f"no `=` in {shorten(repr(override))}; write for example train.epochs=3"
        raise ConfigError([mark.problem("", message)])
    if not all(path) or len(path) > MAX_PATH_PIECES or not dotted.isprintable():
        message = "this is no path of a setting; write for example train.epochs=3"
        raise ConfigError([mark.problem("", message)])
    if not text.strip():
        raise ConfigError([mark.problem(dotted, "no value after `=`; write null for none")])
    node, problems = parse(text, mark.file)
    named = [
        Problem(p.file, p.line, p.column, f"{dotted}.{p.path}".rstrip("."), p.message)
        for p in problems
    ]
    return path, node, named


def _replace(
    node: Node, path: Sequence[str], value: Node, mark: Mark, above: tuple[str, ...]
) -> Node:
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(node, ScalarNode) and node.value is None and node.valid:
        node = MapNode(node.mark, {}, 1)  # `train:` without settings is an empty block
    here = ".".join(above)
    if not isinstance(node, MapNode):
        what = "a list" if isinstance(node, ListNode) else "a value"
        message = f"{here} is {what}, not a block; override it as a whole: --set '{here}=...'"
        raise ConfigError([mark.problem(".".join([*above, *path]), message)])
    kinds = [kind for kind in node.entries if kind in KINDS]
    if kinds and above:
        message = f"{here} is a {kinds[0]} range; override it as a whole: --set '{here}=...'"
        raise ConfigError([mark.problem(".".join([*above, *path]), message)])
    old = node.entries.get(key)
    inner = old.node if old else MapNode(mark, {}, 1)
    entry = Entry(mark, _replace(inner, rest, value, mark, (*above, key)))
    kept = Entry(old.key_mark, entry.node) if old and rest else entry
    return MapNode(node.mark, {**node.entries, key: kept}, node.size)


def _mark(dotted: str) -> Mark:
    return Mark(f"--set {shorten(dotted)}", 1, 1)
