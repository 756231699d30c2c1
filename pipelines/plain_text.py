"""Text of users, made safe to show: without secrets, in a terminal, in CSV or in Markdown."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Sequence

import click

# Characters that move the cursor, change colours, end the line or turn the direction of writing
# (controls C0 and C1, line separators, bidi controls), and half characters, which no encoding has.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# User and password of an address. A password may hold what should have been escaped, so behind a
# colon all up to the last @ counts, unless the colon begins a port. In a path, // has become /.
_LOGIN = re.compile(
    r"""((?<=\w):/{1,2})[^\s"'<>/:@?#]*:(?!\d{1,5}(?:[/?#]|$))[^\s"'<>]{0,300}@"""
    r"""|(://)[^\s"'<>/?#]{0,300}@"""
)
# Options of an address, a connection or a process that hold a secret, and headers that log in. A
# quote ends a text of JSON if what separates it from the next one follows.
_SECRET = re.compile(
    r"""(?ix) (
        (?: passw(?:or)?d | pwd | passphrase | secret | token | credentials? | \b signature
          | (?:access|api|account|auth|private|shared)[_-]?key(?:[_-]?id)? | googleaccessid
          | x-(?:amz|goog|ms)-[\w-]{1,40} | (?<=[?&;\#]) (?: key | sig | sas ) )
        (?: = | %3d )
    ) (?: '[^'"]*' | \\"(?:[^"\\]|\\\\)*\\" | "[^"\s,:}\]][^"]*" | [^\s&"'\#;,<>(){}\[\]\\]+ )
    | (authorization:\s*\w+\s+) [^\s"'\\]+"""
)
# A spreadsheet runs a cell that starts so, also after blanks and in full width (OWASP).
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
# An underscore within a word is no markup, and neither is an ampersand that begins no entity.
_MARKDOWN = re.compile(r"[\\`*\[\]#|~$<>]|(?<![^\W_])_|_(?![^\W_])|&(?=[#\w]+;)")


def redact(text: object) -> str:
    """Return text without the users, passwords, keys and tokens of the addresses in it.

    Of ``https://me:pw@host/x?sig=1`` stays ``https://***@host/x?sig=***``.
    """
    shown = str(text)
    if "@" in shown:
        shown = _LOGIN.sub(lambda found: f"{found[1] or found[2]}***@", shown)
    if any(mark in shown for mark in "=:%"):  # rare, and most names pass here
        shown = _SECRET.sub(lambda found: f"{found[1] or found[2]}***", shown)
    return shown


def escaped(text: object) -> str:
    """Return text as one line that a terminal only shows; controls are escaped.

    Labels and groups are stored so: no program after it has to care again.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def printable(text: object) -> str:
    """Return text as one line that a terminal only shows, without secrets."""
    return escaped(redact(text))


def for_cell(value: object) -> object:
    """Return the cell of a CSV that no spreadsheet runs as a formula; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    text = escaped(value)
    return f"'{text}" if _FORMULA.match(text) else text


def for_markdown(text: object) -> str:
    """Return text as one line that Markdown shows as it is: no links, no HTML, no formulas."""

    def escape(found: re.Match[str]) -> str:
        mark = found[0]
        return html.escape(mark) if mark in "<>&" else f"\\{mark}"

    return _MARKDOWN.sub(escape, printable(text))


def code(text: object) -> str:
    """Return text as a code span, in which nothing is markup, also within a table."""
    shown = printable(text).replace("|", "\\|")
    ticks = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    gap = " " if shown[:1] in ("`", " ", "") or shown[-1:] in ("`", " ") else ""
    return f"{ticks}{gap}{shown}{gap}{ticks}"


def first_few(items: Sequence[str], number: int | None = None, shown: int = 3) -> str:
    """Return the first items of a list in words, and how many more there are.

    Args:
        items: The items, or only the first of them.
        number: Number of all items, if these are not all.
        shown: How many are named.
    """
    more = (len(items) if number is None else number) - len(items[:shown])
    return "; ".join([*items[:shown], *([f"and {more} more"] if more > 0 else [])])


def echo(text: object, err: bool = False) -> None:
    """Print lines, with escapes for what a terminal obeys or its encoding lacks."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    for line in str(text).split("\n"):
        click.echo(printable(line).encode(encoding, "backslashreplace").decode(encoding), err=err)
