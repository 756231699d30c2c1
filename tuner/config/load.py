"""Load a space file and its overrides: returns a space, or raises all problems at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import yaml

from pipelines.errors import UserError
from tuner.config.fill_in import Anywhere, Surroundings, fill_in, place_of
from tuner.config.fit import unfit
from tuner.config.messages import nearest
from tuner.config.overrides import apply
from tuner.config.read_tree import read_tree
from tuner.config.settings_left_out import fill_defaults
from tuner.config.space import Space
from tuner.config.validate import MAX_PROBLEMS, check
from tuner.config.yaml_text import Mark, compose, is_null, mark_after, mark_of
from tuner.errors import ConfigError, Problem

MAX_BYTES: Final = 1_000_000
_PACKAGE = Path(__file__).parents[1]
SHIPPED: Final = (_PACKAGE / "search_spaces", _PACKAGE.parent / "search_spaces")
"""Folder of the shipped space files: where a wheel puts it, and that of a checkout."""


def load(path: Path, overrides: Sequence[str] = (), around: Surroundings | None = None) -> Space:
    """Load a space file.

    Args:
        path: The file, UTF-8 or UTF-16 with a byte-order mark, at most 1 MB; or the name of a
            shipped one, such as ``auto``, if there is no such file.
        overrides: Overrides as ``a.b=value``; the value is YAML, a leaf or a block.
        around: The data and the weights that settings are chosen for if they are ``auto``, and
            that all settings are compared with; None to choose for the demo.

    Raises:
        ConfigError: The file or an override is invalid; the error holds every problem.
        UserError: There is no data that settings could be chosen for.
    """
    path = _shipped(path)
    file = str(path)
    return loads(_decode(_read(path, file), file), file, overrides, around)


def _shipped(path: Path) -> Path:
    """Return the shipped space file of a name; a path that is no such name stays as it is."""
    if path.suffix or path.name != str(path) or (path.exists() and not path.is_dir()):
        return path
    found = (folder / f"{path}.yaml" for folder in SHIPPED)
    return next((file for file in found if file.is_file()), path)


def loads(
    source: str,
    file: str = "<text>",
    overrides: Sequence[str] = (),
    around: Surroundings | None = None,
) -> Space:
    """Load the text of a space file; see ``load``."""
    document, faults = apply(_top(compose(source, file), file), overrides)
    document, choices = fill_in(document, around or Anywhere())
    tree, problems = read_tree(document)
    broken, warnings = check(tree)
    if problems := [*problems, *faults, *broken]:
        raise ConfigError(_in_order(problems, file))
    chosen = {choice.setting for choice in choices}
    # Nobody can act on advice about a value that this program chose.
    warnings = [one for one in warnings if one.path not in chosen]
    space = Space(file, source, fill_defaults(tree), tuple(warnings), choices)
    if around is None or around.recorded(space.name) is not None:
        return space
    try:
        found = unfit(space.tree, around.facts(place_of(document)))
        return replace(space, remarks=tuple(one for one in found if one.path not in chosen))
    except UserError:  # no such data, or no split of it: an error only for those who need it
        return space


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
    """Say what may have been meant: a file of nearly that name, a shipped one, or a folder."""
    with suppress(OSError, ValueError):
        if path.is_dir():
            return f"; to learn from the audio in a folder, write auto --data {path}"
        siblings = [entry.name for entry in os.scandir(path.parent)][:1000]
        if near := nearest(path.name, siblings, 1):
            return f"; did you mean {path.with_name(near[0])}?"
    with suppress(OSError, ValueError):
        if _shipped(Path(path.stem)).suffix:
            return f"; write {path.stem} for the shipped file of that name"
        if not path.suffix:
            names = sorted({file.stem for folder in SHIPPED for file in folder.glob("*.yaml")})
            return f"; the shipped files are {', '.join(names)}"
    return ""


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
