"""YAML text to nodes that know their place, safe for any input.

PyYAML's event parser is used and its composer is not: events come one by one, so that depth,
size and aliases are limited before anything is built. Tags are refused, hence nothing is ever
constructed from a name in the file. One document per file; merge keys (``<<``) are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import yaml

from tuner.config.scalars import ScalarError, read_plain, read_text, shorten
from tuner.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tuner.config.range_kinds import Scalar

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 24  # a space file needs about 8
MAX_PROBLEMS: Final = 100
MAX_KEY: Final = 200
MAX_NODES: Final = 5_000  # aliases count as what they stand for; a large space has 500
_UNPRINTABLE = re.compile(
    r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file; line and column from 1."""

    file: str
    line: int
    column: int

    def problem(self, path: str, message: str) -> Problem:
        """Make the problem that is reported at this place."""
        return Problem(self.file, self.line, self.column, path, message)


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """A single value; ``valid`` is false when its problem has been reported already."""

    mark: Mark
    value: Scalar
    valid: bool = True
    size: int = 1


@dataclass(frozen=True, slots=True)
class ListNode:
    """A list."""

    mark: Mark
    items: tuple[Node, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping: where the key stands and what it holds."""

    key_mark: Mark
    node: Node


@dataclass(frozen=True, slots=True)
class MapNode:
    """A mapping with text keys."""

    mark: Mark
    entries: dict[str, Entry]
    size: int


Node: TypeAlias = ScalarNode | ListNode | MapNode


class _Refused(Exception):  # noqa: N818 - private signal, never leaves this module
    """The text cannot be read on from here."""

    def __init__(self, mark: Mark, message: str) -> None:
        self.problem = mark.problem("", message)
        super().__init__(message)


def decode(data: bytes, file: str) -> str:
    """Decode a file: UTF-8, or UTF-16 with a byte-order mark.

    Raises:
        ConfigError: The bytes are no such text; says where the first bad one is.
    """
    codec = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(codec, errors="replace")
        mark = _mark_after(before, file)
        message = f"byte 0x{data[error.start]:02x} is no {codec.upper()[:6].rstrip('-')} text"
        raise ConfigError([mark.problem("", f"{message}; save the file as UTF-8")]) from None


def parse(text: str, file: str) -> tuple[Node, list[Problem]]:
    """Read one YAML document.

    Args:
        text: The document.
        file: What to call it in messages.

    Returns:
        The root node, and the faults after which reading could go on (bad scalars, tags,
        duplicate keys), in the order of the text.

    Raises:
        ConfigError: Reading could not go on, or the document is empty.
    """
    reader = _Reader(file)
    try:
        found = _UNPRINTABLE.search(text)
        if found:
            message = f"control character U+{ord(found[0]):04X} in the text; remove it"
            raise _Refused(_mark_after(text[: found.start()], file), message)
        return reader.read(text), reader.problems
    except _Refused as refused:
        raise ConfigError([*reader.problems, refused.problem]) from None
    except yaml.YAMLError as error:
        raise ConfigError([*reader.problems, _syntax_problem(error, text, file)]) from None


@dataclass(slots=True)
class _Reader:
    """Builds nodes from the events of one document."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    anchors: dict[str, Node | None] = field(default_factory=dict)  # None: not yet complete
    path: list[str] = field(default_factory=list)  # of the node being read
    num_nodes: int = 0

    def read(self, text: str) -> Node:
        # libyaml's parser is 20 times faster; both give the same events.
        loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        events = yaml.parse(text, Loader=loader)
        next(events)  # the start of the stream
        start = next(events)
        if isinstance(start, yaml.StreamEndEvent):
            raise _Refused(
                Mark(self.file, 1, 1), "the file is empty; write at least name and model"
            )
        root = self._node(next(events), events, depth=1)
        next(events)  # the end of the document
        after = next(events)
        if isinstance(after, yaml.DocumentStartEvent):
            raise _Refused(
                self._mark(after), "a second document starts here; one file is one study"
            )
        return root

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        mark = self._mark(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, mark)
        if depth > MAX_DEPTH:
            raise _Refused(mark, f"nested deeper than {MAX_DEPTH} levels")
        self._count(1, mark)
        assert isinstance(event, yaml.NodeEvent)  # what the grammar allows here
        anchor = event.anchor
        if anchor is not None:
            self.anchors[anchor] = None
        node = self._content(event, events, depth)
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            self._report(mark, f"the tag {shorten(str(tag))!r} is refused; remove it")
            node = ScalarNode(mark, None, valid=False)
        if anchor is not None:
            self.anchors[anchor] = node
        return node

    def _content(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(event, events, depth)
        return self._mapping(event, events, depth)

    def _alias(self, event: yaml.AliasEvent, mark: Mark) -> Node:
        name = str(event.anchor)
        if name not in self.anchors:
            raise _Refused(
                mark, f"the alias *{shorten(name)} has no anchor &{shorten(name)} before it"
            )
        node = self.anchors[name]
        if node is None:
            raise _Refused(mark, f"the alias *{shorten(name)} stands inside its own anchor")
        self._count(node.size, mark)
        return node

    def _count(self, num_nodes: int, mark: Mark) -> None:
        self.num_nodes += num_nodes
        if self.num_nodes > MAX_NODES:
            raise _Refused(
                mark, f"more than {MAX_NODES} values, aliases expanded; a space has hundreds"
            )

    def _scalar(self, event: yaml.ScalarEvent) -> ScalarNode:
        mark = self._mark(event)
        plain = not event.style
        try:
            value = read_plain(event.value) if plain else read_text(event.value)
        except ScalarError as error:
            self._report(mark, str(error))
            return ScalarNode(mark, None, valid=False)
        return ScalarNode(mark, value)

    def _list(self, start: yaml.Event, events: Iterator[yaml.Event], depth: int) -> ListNode:
        items: list[Node] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            self.path.append(str(len(items)))
            items.append(self._node(event, events, depth + 1))
            self.path.pop()
        return ListNode(self._mark(start), tuple(items), 1 + sum(item.size for item in items))

    def _mapping(self, start: yaml.Event, events: Iterator[yaml.Event], depth: int) -> MapNode:
        entries: dict[str, Entry] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key_mark = self._mark(event)
            key = self._key(event)
            self.path.append(shorten(key))
            node = self._node(next(events), events, depth + 1)
            if key in entries:
                first = entries[key].key_mark.line
                self._report(key_mark, f"this key stands twice, first on line {first}; remove one")
            else:
                entries[key] = Entry(key_mark, node)
            self.path.pop()
        size = 1 + sum(1 + entry.node.size for entry in entries.values())
        return MapNode(self._mark(start), entries, size)

    def _key(self, event: yaml.Event) -> str:
        """Keys are text as written: ``on:`` is the key ``on``."""
        mark = self._mark(event)
        if not isinstance(event, yaml.ScalarEvent) or event.anchor or event.tag not in (None, "!"):
            raise _Refused(mark, "a key must be a plain word, without tag, anchor or brackets")
        if event.value == "<<" and not event.style:
            raise _Refused(mark, "merge keys (<<) are refused; write the settings out")
        self._count(1, mark)
        try:
            key = read_text(event.value)
        except ScalarError as error:
            raise _Refused(mark, str(error)) from None
        if len(key) > MAX_KEY:
            raise _Refused(mark, f"a key of {len(key)} characters: {shorten(key)!r}")
        return key

    def _report(self, mark: Mark, message: str) -> None:
        if len(self.problems) <= MAX_PROBLEMS:
            self.problems.append(mark.problem(".".join(self.path), message))

    def _mark(self, event: yaml.Event) -> Mark:
        start = event.start_mark
        return (
            Mark(self.file, start.line + 1, start.column + 1) if start else Mark(self.file, 1, 1)
        )


def _mark_after(text: str, file: str) -> Mark:
    line = text.count("\n") + 1
    return Mark(file, line, len(text) - (text.rfind("\n") + 1) + 1)


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    context = getattr(error, "context", None)
    place = Mark(file, mark.line + 1, mark.column + 1) if mark else Mark(file, 1, 1)
    end = _mark_after(text, file)
    place = min(place, end, key=lambda m: (m.line, m.column))  # libyaml adds a line of its own
    tabs = "tab" in str(reason) or "\\t" in str(reason)
    hint = "; indent with blanks, not tabs" if tabs else ""
    where = f" ({context})" if context else ""
    return place.problem("", f"no valid YAML: {reason}{where}{hint}")
