"""Loading of a space file: gives a space, or an error with all problems of the file at once."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

import yaml

from tuner.config.messages import nearest
from tuner.config.overrides import apply_overrides
from tuner.config.read_tree import read_tree
from tuner.config.space import Space, fill_defaults
from tuner.config.validate import MAX_PROBLEMS, check
from tuner.config.yaml_text import Mark, compose, is_null, mark_after, mark_of
from tuner.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

MAX_BYTES: Final = 1_000_000


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
    root, faults = apply_overrides(_top(compose(source, file), file), overrides)
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
        message = f"cannot read the file: {reason}{_similar_file(path)}"
        raise ConfigError([start.problem("", message)]) from None
    if data is None:
        message = "expected a space file, got a pipe or a device"
        raise ConfigError([start.problem("", message)])
    if len(data) > MAX_BYTES:
        message = f"the file is too large: {status.st_size} bytes; at most {MAX_BYTES} are allowed"
        raise ConfigError([start.problem("", message)])
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
        raise ConfigError([mark.problem("", message)]) from None


def _top(root: yaml.Node | None, file: str) -> yaml.MappingNode:
    if isinstance(root, yaml.MappingNode):
        return root
    if root is None or is_null(root):
        message = "the file is empty; write at least name and model"
    else:
        what = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        message = f"expected a block of settings at the top of a space file, got {what}"
    mark = mark_of(root) if root else Mark(file, 1, 1)
    raise ConfigError([mark.problem("", message)])


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
