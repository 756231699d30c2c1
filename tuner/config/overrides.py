"""Overrides of a space file: settings replaced in its document, as ``a.b=value``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import yaml

from pipelines.plain_text import shorten
from tuner.config.ranges import KINDS
from tuner.config.yaml_text import Mark, Scalar, compose, is_null
from tuner.errors import FLAGS, ConfigError, Problem

MAX_PATH_PIECES: Final = 8


def as_override(path: str, value: Scalar) -> str:
    """Write an override whose value is taken literally, whatever characters it contains.

    Args:
        path: Dotted path of the setting, or one of `FLAGS`, by which messages then call it.
        value: The value.
    """
    return f"{path}={json.dumps(value, ensure_ascii=False)}"


def apply(
    root: yaml.MappingNode, overrides: Sequence[str]
) -> tuple[yaml.MappingNode, list[Problem]]:
    """Apply overrides to a document; a later one wins over an earlier one.

    Args:
        root: The top of the document.
        overrides: Overrides as ``a.b=value``; the value is YAML, a leaf or a block.

    Returns:
        The new top, and the problems of the overrides; a faulty override is skipped.
    """
    problems: list[Problem] = []
    for override in overrides:
        try:
            path, value = _read_override(override)
            root = replaced(root, path, value)
        except ConfigError as error:
            problems.extend(error.problems)
    return root, problems


def _read_override(override: str) -> tuple[list[str], yaml.Node]:
    dotted, equals, text = override.partition("=")
    dotted = dotted.strip()
    mark = Mark(dotted if dotted in FLAGS else f"--set {shorten(dotted or override)}", 1, 1)
    dotted = FLAGS.get(dotted, dotted)
    path = dotted.split(".")
    if not equals:
        message = f"missing `=` in {shorten(repr(override))}; write for example train.epochs=3"
        raise mark.error(message)
    if not all(path) or len(path) > MAX_PATH_PIECES or not dotted.isprintable():
        raise mark.error("invalid path of a setting; write for example train.epochs=3")
    value = compose(text, mark.file) if text.strip() else None
    if value is None:
        raise mark.error("missing value after `=`; write null for none", dotted)
    return path, value


def replaced(
    node: yaml.Node, path: Sequence[str], value: yaml.Node, above: tuple[str, ...] = ()
) -> yaml.MappingNode:
    """Return a copy of a block with another value at ``path``; ``above`` leads to the block.

    Raises:
        ConfigError: A range, a list or a value is in the way.
    """
    entries = _entries_of(node, path, value, above)
    key, rest = path[0], path[1:]
    new = (yaml.ScalarNode("", key, value.start_mark), yaml.MappingNode("", [], value.start_mark))
    at = next((i for i, (k, _) in enumerate(entries) if k.value == key), len(entries))
    key_node, inner = entries[at] if at < len(entries) else new
    if is_null(inner):  # `train:` without settings is an empty block
        inner = yaml.MappingNode("", [], inner.start_mark)
    pair = (key_node, replaced(inner, rest, value, (*above, key))) if rest else (new[0], value)
    return yaml.MappingNode("", [*entries[:at], pair, *entries[at + 1 :]], node.start_mark)


def _entries_of(
    node: yaml.Node, path: Sequence[str], value: yaml.Node, above: tuple[str, ...]
) -> list[tuple[yaml.Node, yaml.Node]]:
    """Return the entries of a block that an override can change one by one."""
    if isinstance(node, yaml.MappingNode):
        entries: list[tuple[yaml.Node, yaml.Node]] = node.value
        kinds = [key.value for key, _ in entries if key.value in KINDS]
        if not (above and kinds):
            return entries
        what = f"a {kinds[0]} range"
    else:
        what = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
    here = ".".join(above)
    message = f"{here} is {what}; override it as a whole: --set '{here}=...'"
    mark = Mark(value.start_mark.name, 1, 1)
    raise mark.error(message, ".".join([*above, *path]))
