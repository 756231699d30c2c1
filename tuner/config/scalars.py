"""Plain YAML scalars to values, by the core schema of YAML 1.2.

PyYAML follows YAML 1.1, where ``1e-3`` is text, ``no`` is false, ``010`` is eight and ``12:30``
is 750. Here ``1e-3`` is a number and the others are text, but for a leading zero, which readers
of either version would take differently and which is therefore refused.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.config.range_kinds import Scalar

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_DIGITS = 18  # every whole number of 18 digits fits into 64 bits
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


class ScalarError(ValueError):
    """A scalar that is refused; the message says what to write instead."""


def read_plain(text: str) -> Scalar:
    """Turn an unquoted scalar into the value that it stands for.

    Raises:
        ScalarError: The value is ambiguous (``010``), not finite, or too large for 64 bits.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _LEADING_ZERO.fullmatch(text):
        bare = text.lstrip("+-0") or "0"
        shown = shorten(text)
        raise ScalarError(
            f"{shown} is ambiguous: a leading zero means octal to some readers; "
            f'write {shorten(bare)} for the number, "{shown}" for the text'
        )
    if _INT.fullmatch(text) or _OCTAL.fullmatch(text) or _HEX.fullmatch(text):
        return _read_integer(text)
    if _NOT_FINITE.fullmatch(text):
        raise ScalarError(f'{text} is no finite number; quote it ("{text}") if it is a text')
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise ScalarError(f"{shorten(text)} is too large for a 64-bit number")
        return number
    return read_text(text)


def read_text(text: str) -> str:
    """Check a text, quoted or plain.

    Raises:
        ScalarError: It holds control characters or line breaks, which no setting needs.
    """
    found = _UNSAFE.search(text)
    if found:
        code = f"U+{ord(found[0]):04X}"
        raise ScalarError(f"the text {shorten(text)!r} holds the control character {code}")
    return text


def write(value: Scalar) -> str:
    """Write a value so that ``read_plain`` or a quoted scalar gives it back unchanged."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value) and value not in _BOOL
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return value if plain and value not in _NULL else f'"{escaped}"'
    return repr(value)


def shorten(text: str, width: int = 60) -> str:
    """Cut a long text for a message."""
    return text if len(text) <= width else f"{text[: width - 3]}..."


def show(value: object) -> str:
    """Write a value for a message, as a space file would."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {shorten(repr(value))}"
    if isinstance(value, dict):
        return f"a block with {shorten(', '.join(map(str, value)))}" if value else "an empty block"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return shorten(repr(value))


def _read_integer(text: str) -> int:
    if len(text.lstrip("+-")) > _MAX_DIGITS:
        raise ScalarError(
            f"{shorten(text, 24)} ({len(text)} characters) is too large for a 64-bit number"
        )
    if text.startswith("0o"):
        return int(text[2:], 8)
    return int(text[2:], 16) if text.startswith("0x") else int(text)
