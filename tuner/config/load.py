"""Load a space file and its overrides: returns a space, or raises all problems at once."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import yaml

from tuner.config.messages import nearest
from tuner.config.ranges import KINDS
from tuner.config.read_tree import read_tree
from tuner.config.space import Space, fill_defaults
from tuner.config.validate import MAX_PROBLEMS, check
from tuner.config.yaml_text import Mark, Scalar, compose, is_null, mark_after, mark_of, shorten
from tuner.errors import ConfigError, Problem

MAX_BYTES: Final = 1_000_000
MAX_PATH_PIECES: Final = 8


def load(path: Path, overrides: Sequence[str] = ()) -> Space:
    """Load a space file.

    Args:
        path: The file, UTF-8 or UTF-16 with a byte-order mark, at most 1 MB.
        overrides: Overrides as ``a.b=value``; the value is YAML, a leaf or a block.

    Raises:
        ConfigError: The file or an override is invalid; the error holds every problem.
    """
    file = str(path)
    return loads(_decode(_read(path, file), file), file, overrides)


def loads(source: str, file: str = "<text>", overrides: Sequence[str] = ()) -> Space:
    """Load the text of a space file; see ``load``."""
    root, faults = _apply(_top(compose(source, file), file), overrides)
    tree, problems = read_tree(root)
    found, warnings = check(tree)
    if problems := [*problems, *faults, *found]:
        raise ConfigError(_in_order(problems, file))
    return Space(file, source, fill_defaults(tree), tuple(warnings))


def _read(path: Path, file: str) -> bytes:
    """Read at most 1 MB from a regular file, without ever waiting on a pipe or a device."""
    start = Mark(file, 1, 1)
    try:
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as stream:
            status = os.fstat(stream.fileno())
            data = stream.read(MAX_BYTES + 1) if stat.S_ISREG(status.st_mode) else None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise start.error(f"cannot read the file: {reason}{_similar_file(path)}") from None
    if data is None:
        raise start.error("expected a space file, got a pipe or a device")
    if len(data) > MAX_BYTES:
        raise start.error(
            f"the file is too large: {status.st_size} bytes; at most {MAX_BYTES} are allowed"
        )
    return data


def _similar_file(path: Path) -> str:
    """Name a file in the same folder that is spelled nearly the same."""
    try:
        siblings = [entry.name for entry in os.scandir(path.parent)][:1000]
    except (OSError, ValueError):
        return ""
    near = nearest(path.name, siblings, 1)
    return f"; did you mean {path.with_name(near[0])}?" if near else ""


def _decode(data: bytes, file: str) -> str:
    is_utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    codec, name = ("utf-16", "UTF-16") if is_utf16 else ("utf-8-sig", "UTF-8")
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        mark = mark_after(data[: error.start].decode(codec, errors="replace"), file)
        byte = f"byte 0x{data[error.start]:02x} at line {mark.line}"
        message = f"invalid YAML; the file is not valid {name} ({byte}); save it as UTF-8"
        raise mark.error(message) from None


def _top(root: yaml.Node | None, file: str) -> yaml.MappingNode:
    if isinstance(root, yaml.MappingNode):
        return root
    if root is None or is_null(root):
        message = "the file is empty; write at least name and model"
    else:
        what = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        message = f"expected a block of settings at the top of a space file, got {what}"
    mark = mark_of(root) if root else Mark(file, 1, 1)
    raise mark.error(message)


def _in_order(problems: Iterable[Problem], file: str) -> list[Problem]:
    """Sort by place, the file before its overrides; an alias can report one problem twice."""
    ordered = sorted(
        dict.fromkeys(problems), key=lambda p: (p.file != file, p.file, p.line, p.column)
    )
    if len(ordered) <= MAX_PROBLEMS:
        return ordered
    last = ordered[MAX_PROBLEMS]
    more = f"more than {MAX_PROBLEMS} problems; the rest is not shown"
    return [*ordered[:MAX_PROBLEMS], Problem(last.file, last.line, last.column, "", more)]


def as_override(path: str, value: Scalar) -> str:
    """Write an override whose value is taken literally, whatever characters it contains."""
    return f"{path}={json.dumps(value, ensure_ascii=False)}"


def _apply(
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
            root = _replace(root, path, value, ())
        except ConfigError as error:
            problems.extend(error.problems)
    return root, problems


def _read_override(override: str) -> tuple[list[str], yaml.Node]:
    dotted, equals, text = override.partition("=")
    dotted = dotted.strip()
    path = dotted.split(".")
    mark = Mark(f"--set {shorten(dotted)}", 1, 1)
    if not equals:
        message = f"missing `=` in {shorten(repr(override))}; write for example train.epochs=3"
        raise mark.error(message)
    if not all(path) or len(path) > MAX_PATH_PIECES or not dotted.isprintable():
        raise mark.error("invalid path of a setting; write for example train.epochs=3")
    value = compose(text, mark.file) if text.strip() else None
    if value is None:
        raise mark.error("missing value after `=`; write null for none", dotted)
    return path, value


def _replace(
    node: yaml.Node, path: Sequence[str], value: yaml.Node, above: tuple[str, ...]
) -> yaml.MappingNode:
    """Return a copy of a block with another value at ``path``; ``above`` leads to the block."""
    entries = _entries_of(node, path, value, above)
    key, rest = path[0], path[1:]
    new = (yaml.ScalarNode("", key, value.start_mark), yaml.MappingNode("", [], value.start_mark))
    at = next((i for i, (k, _) in enumerate(entries) if k.value == key), len(entries))
    key_node, inner = entries[at] if at < len(entries) else new
    if is_null(inner):  # `train:` without settings is an empty block
        inner = yaml.MappingNode("", [], inner.start_mark)
    pair = (key_node, _replace(inner, rest, value, (*above, key))) if rest else (new[0], value)
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
