"""A space file to a space, or to all of its problems at once."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from tuner.config.defaults import fill_defaults
from tuner.config.messages import nearest
from tuner.config.overrides import apply_overrides
from tuner.config.range_kinds import count_values
from tuner.config.read_tree import read_tree
from tuner.config.tree import Block, Leaf, count_draws, open_settings
from tuner.config.typed_space import Space
from tuner.config.validate import check
from tuner.config.yaml_nodes import (
    MAX_BYTES,
    MAX_PROBLEMS,
    ListNode,
    MapNode,
    Mark,
    ScalarNode,
    decode,
    parse,
)
from tuner.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tuner.config.yaml_nodes import Node

MAX_GRID = 10_000
MAX_FEATURE_SETS = 32


def load(path: Path, overrides: Sequence[str] = ()) -> Space:
    """Read a space file.

    Args:
        path: The file; UTF-8, at most 1 MB.
        overrides: ``a.b=value`` each; the value is YAML, a leaf or a block.

    Raises:
        ConfigError: Anything is wrong with the file or an override; holds every problem.
    """
    file = str(path)
    source = decode(_read(path, file), file)
    return loads(source, file, overrides)


def loads(source: str, file: str = "<text>", overrides: Sequence[str] = ()) -> Space:
    """Read the text of a space file; see ``load``."""
    root, problems = parse(source, file)
    root, faults = apply_overrides(_top(root, file), overrides)
    tree, range_faults = read_tree(root)
    problems = [*problems, *faults, *range_faults]
    findings = check(tree)
    problems.extend(findings.problems.values())
    problems.extend(_check_sizes(tree))
    if problems:
        raise ConfigError(_in_order(problems, file))
    return Space(file, source, fill_defaults(tree), tuple(findings.warnings.values()))


def _read(path: Path, file: str) -> bytes:
    """Read at most 1 MB from a regular file; never waits on a pipe or a device."""
    start = Mark(file, 1, 1)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"cannot be read: {reason}{_similar_file(path)}"
        raise ConfigError([start.problem("", message)]) from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
            raise ConfigError([start.problem("", f"this is {what}, not a space file")])
        with os.fdopen(os.dup(handle), "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    finally:
        os.close(handle)
    if len(data) > MAX_BYTES:
        message = f"{status.st_size} bytes are too many; a space file has at most {MAX_BYTES}"
        raise ConfigError([start.problem("", message)])
    return data


def _similar_file(path: Path) -> str:
    """Name the file of the same folder that is spelled nearly the same."""
    try:
        siblings = [entry.name for entry in os.scandir(path.parent)][:1000]
    except (OSError, ValueError):
        return ""
    near = nearest(path.name, siblings, 1)
    return f"; did you mean {path.with_name(near[0])}?" if near else ""


def _top(root: Node, file: str) -> MapNode:
    if isinstance(root, MapNode):
        return root
    if isinstance(root, ScalarNode) and root.value is None and root.valid:
        message = "the file is empty; write at least name and model"
    else:
        what = "a list" if isinstance(root, ListNode) else "a single value"
        message = f"the top of a space file is a block of settings, not {what}"
    raise ConfigError([Mark(file, root.mark.line, root.mark.column).problem("", message)])


def _check_sizes(tree: Block) -> list[Problem]:
    """Count what the ranges multiply to, where all of it would be built or visited."""
    shaping = {key: tree.entries[key] for key in ("data", "features") if key in tree.entries}
    features = Block(shaping, tree.mark, tree.key_marks)
    why = "each feature set is built as a whole; use choice, grid, integer or quantized"
    problems = _continuous(features, why)
    num_sets = count_draws(features)
    if num_sets is not None and num_sets > MAX_FEATURE_SETS:
        mark = next(open_settings(features)).setting.mark
        message = (
            f"the ranges make {num_sets} feature sets; at most {MAX_FEATURE_SETS} are allowed"
        )
        problems.append(mark.problem("features", message))
    algorithm = _leaf(tree, "search", "algorithm")
    if algorithm is None or algorithm.value != "grid":
        return problems
    problems.extend(_continuous(tree, "the grid needs a list; use choice, grid or quantized"))
    num_points = count_draws(tree)
    if num_points is not None and num_points > MAX_GRID:
        message = f"the grid has {num_points:,} points; at most {MAX_GRID:,} are allowed"
        problems.append(algorithm.mark.problem("search.algorithm", message))
    return problems


def _continuous(tree: Block, why: str) -> list[Problem]:
    found = (at.setting for at in open_settings(tree))
    return [
        setting.mark.problem(setting.name, f"{setting.range.kind} is continuous, but {why}")
        for setting in found
        if count_values(setting.range) is None
    ]


def _leaf(tree: Block, block: str, key: str) -> Leaf | None:
    inner = tree.entries.get(block)
    leaf = inner.entries.get(key) if isinstance(inner, Block) else None
    return leaf if isinstance(leaf, Leaf) else None


def _in_order(problems: Iterable[Problem], file: str) -> list[Problem]:
    """Sort by place, the file before its overrides; an alias can report one fault twice."""
    ordered = sorted(
        dict.fromkeys(problems), key=lambda p: (p.file != file, p.file, p.line, p.column)
    )
    if len(ordered) <= MAX_PROBLEMS:
        return ordered
    last = ordered[MAX_PROBLEMS]
    more = f"more than {MAX_PROBLEMS} problems; the rest is not shown"
    return [*ordered[:MAX_PROBLEMS], Problem(last.file, last.line, last.column, "", more)]
