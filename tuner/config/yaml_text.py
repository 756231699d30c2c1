"""YAML text of a space file: nodes composed within limits, scalars of the YAML 1.2 core schema.

PyYAML composes the nodes, and nothing is constructed from them: the tree reader refuses tags. Its
scalars follow YAML 1.1, where ``1e-3`` is a string, ``no`` is false, ``010`` is eight and
``12:30`` is 750. Here ``1e-3`` is a number and the others are strings, except for a leading zero,
which is refused because readers of the two versions disagree about it.
"""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NoReturn, TypeAlias

import yaml
from yaml.composer import Composer, ComposerError

from pipelines.plain_text import shorten
from tuner.errors import ConfigError, Problem

Scalar: TypeAlias = bool | int | float | str | None

MAX_DEPTH: Final = 24  # a space file needs about 8
MAX_KEY: Final = 200
MAX_NODES: Final = 5_000  # with aliases expanded; a large space has 500
_UNPRINTABLE = re.compile(
    r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None, "true": True,
          "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}  # fmt: skip
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_DIGITS = 18  # every integer of 18 digits fits into 64 bits
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")  # strings that need no quotes
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file; line and column from 1."""

    file: str
    line: int
    column: int

    def problem(self, path: str, message: str) -> Problem:
        """Return the problem to report at this place."""
        return Problem(self.file, self.line, self.column, path, message)

    def error(self, message: str, path: str = "") -> ConfigError:
        """Return the error with one problem, at this place."""
        return ConfigError([self.problem(path, message)])


def mark_of(node: yaml.Node) -> Mark:
    """Return the place where a node starts."""
    return Mark(node.start_mark.name, node.start_mark.line + 1, node.start_mark.column + 1)


def mark_after(text: str, file: str) -> Mark:
    """Return the place right after a text."""
    return Mark(file, text.count("\n") + 1, len(text) - text.rfind("\n"))


class ScalarError(ValueError):
    """A scalar that is refused; the message says what to write instead."""


class _Stream(io.StringIO):
    """Text whose name is the file in the marks of its nodes."""

    name: str


class _Composer(Composer):
    """PyYAML's composer with a limit on depth and size; an alias counts as what it expands to."""

    def __init__(self, text: str, file: str) -> None:
        super().__init__()
        stream = _Stream(text)
        stream.name = file
        # The parser of libyaml is 20 times faster; both give the same events.
        loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        parser: Any = loader(stream)
        self.check_event, self.get_event = parser.check_event, parser.get_event
        self.peek_event = parser.peek_event
        self.depth = self.num_nodes = 0
        self.extents: dict[int, tuple[int, int]] = {}  # size and height of complete nodes, by id

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(parent, yaml.MappingNode) and index is None:
            _check_key(event)
        if isinstance(event, yaml.AliasEvent):
            node: Any = super().compose_node(parent, index)
            if id(node) not in self.extents:
                _refuse(event, f"the alias *{shorten(str(event.anchor))} is inside its own anchor")
            self._count(event, *self.extents[id(node)])
            return node
        self.anchors.pop(event.anchor, None)  # an anchor may be set again
        self._count(event, 1, 1)
        node = super().compose_node(parent, index)
        children = () if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            children = chain.from_iterable(node.value)
        inner = [self.extents[id(child)] for child in children]
        size, height = sum(size for size, _ in inner), max((h for _, h in inner), default=0)
        self.extents[id(node)] = (1 + size, 1 + height)
        return node

    def _count(self, event: yaml.Event, size: int, height: int) -> None:
        self.num_nodes += size
        if self.num_nodes > MAX_NODES:
            _refuse(event, f"more than {MAX_NODES} values with aliases expanded")
        if self.depth + height > MAX_DEPTH:
            _refuse(event, f"nested deeper than {MAX_DEPTH} levels")

    def descend_resolver(self, parent: yaml.Node | None, index: Any) -> None:
        self.depth += 1

    def ascend_resolver(self) -> None:
        self.depth -= 1

    def resolve(self, *_: object) -> str:
        """Leave the tag of a node empty unless it is written out."""
        return ""


def _refuse(event: yaml.Event, message: str) -> NoReturn:
    raise ComposerError(None, None, message, event.start_mark)  # type: ignore[arg-type]  # libyaml's


def _check_key(event: yaml.Event) -> None:
    """Refuse any key but a word; it is a string as written, so ``on:`` is the key ``on``."""
    if not isinstance(event, yaml.ScalarEvent) or event.anchor or event.tag not in (None, "!"):
        _refuse(event, "a key must be a plain word without tag, anchor or brackets")
    elif event.value == "<<" and not event.style:
        _refuse(event, "merge keys (<<) are not supported; write the settings out")
    elif len(event.value) > MAX_KEY:
        shown = repr(shorten(event.value))
        _refuse(event, f"a key of {len(event.value)} characters, {shown}; at most {MAX_KEY}")
    elif found := _UNSAFE.search(event.value):
        _refuse(event, f"a key with the control character U+{ord(found[0]):04X}")


def compose(text: str, file: str) -> yaml.Node | None:
    """Compose the nodes of one YAML document; their tags are empty unless written out.

    Args:
        text: Text of the document.
        file: Name of the file in messages.

    Returns:
        The root node, or None if the text holds no document.

    Raises:
        ConfigError: The text is not valid YAML, or it exceeds a limit.
    """
    if found := _UNPRINTABLE.search(text):
        message = f"invalid YAML: control character U+{ord(found[0]):04X} in the text; remove it"
        raise mark_after(text[: found.start()], file).error(message)
    try:
        return _Composer(text, file).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Mark(file, mark.line + 1, mark.column + 1) if mark else Mark(file, 1, 1)
        # libyaml reports the end of the text on a line of its own.
        place = min(place, mark_after(text, file), key=lambda m: (m.line, m.column))
        reason = ", ".join(filter(None, (error.context, error.problem)))
        hint = "; one file describes one study" if "another document" in reason else ""
        if "tab" in reason or "\\t" in reason:
            hint = "; indent with spaces, not tabs"
        raise place.error(f"invalid YAML: {reason}{hint}") from None


def is_null(node: yaml.Node) -> bool:
    """Return True for an empty or null scalar."""
    plain = isinstance(node, yaml.ScalarNode) and not node.style
    return plain and _WORDS.get(node.value, "") is None


def read_scalar(node: yaml.ScalarNode) -> Scalar:
    """Return the value of a scalar; a quoted one is a string.

    Raises:
        ScalarError: The value is ambiguous (``010``), not finite, too large for 64 bits, or a
            string with control characters or line breaks, which no setting needs.
    """
    text: str = node.value
    if node.style:
        return _read_string(text)
    if text in _WORDS:
        return _WORDS[text]
    if _LEADING_ZERO.fullmatch(text):
        decimal, shown = shorten(text.lstrip("+-0") or "0"), shorten(text)
        raise ScalarError(
            f"{shown} is ambiguous (a leading zero can mean octal); "
            f'write {decimal} for the number, "{shown}" for the string'
        )
    if _INT.fullmatch(text):
        if len(text.lstrip("+-")) > _MAX_DIGITS:
            size = f"{shorten(text, 24)} ({len(text)} characters)"
            raise ScalarError(f"{size} is too large for a 64-bit number")
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _NOT_FINITE.fullmatch(text):
        raise ScalarError(f'{text} is not a finite number; write "{text}" for the string')
    if _FLOAT.fullmatch(text):
        if not math.isfinite(number := float(text)):
            raise ScalarError(f"{shorten(text)} is too large for a 64-bit number")
        return number
    return _read_string(text)


def _read_string(text: str) -> str:
    if found := _UNSAFE.search(text):
        code = f"U+{ord(found[0]):04X}"
        raise ScalarError(f"the string {shorten(text)!r} contains the control character {code}")
    return text


def write_scalar(value: object) -> str:
    """Write a value so that reading it gives the same value."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


def write_rounded(number: float, digits: int = 3) -> str:
    """Write a number with few digits that are not 0, and without an exponent below a million."""
    return f"{float(f'{number:.{digits}g}'):g}"
