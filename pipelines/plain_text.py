"""Text of users, made safe to show: without secrets, in a terminal, in CSV or in Markdown."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Sequence

import click

# Characters that move the cursor, change colours, end the line or turn the direction of writing
# (controls C0 and C1, line separators, bidi controls), that nobody sees (soft hyphen, zero-width
# characters, tags), and lone surrogates, which no encoding has.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ud800-\udfff"
    "\ufeff\U000e0000-\U000e007f]"
)
# Where an address begins; in a path, // has become /.
_ADDRESS = re.compile(r"(?<=\w\w):/{1,3}|://|(?<![\w:/])//(?=[^\s/]{1,300}@)")
_RUN = re.compile(r'[^\s"<>]*')
# A password may hold what should have been escaped, so behind a colon all up to the last @ counts,
# unless the colon begins a port.
_USER = re.compile(r"[^/:@?#\[]*:(?!\d{1,5}(?:[/?#]|$))")
_HOST = re.compile(r"[^/?#]*")
_ESCAPED_LOGIN = re.compile(r"""(?i)((?:%3a|:)(?:/|%2f){2})[^\s"<>&@]{0,300}%40""")
_WORDS = r"""passw(?:or)?d | (?<!old)pwd | passphrase | (?<![a-z])pass
  | (?:access|api|account|auth|private|shared|secret)[_-]?key(?:[_-]?id)?"""
_MORE = r"""secret(?:[_-]\w{1,20})?(?![a-z]) | token | credentials?(?:_kwargs)? | googleaccessid
  | x-(?:amz|goog|ms)-[\w-]{1,40}
  | (?<=[?&;\#]) (?: key | sig(?:nature)? | sas | auth | jwt | code | sessionid )"""
# Options of an address, a connection or a process that hold a secret, and headers that log in. A
# quote ends a text of JSON if what separates it from the next one follows.
_SECRET = re.compile(
    rf"""(?ix) (
        (?: {_WORDS} | {_MORE} ) (?: = | %3d )
      | (?: {_WORDS} ) (?: : \s{{1,3}} | \s{{1,3}} = \s{{1,3}} )
      | (?> authorization \s{{0,3}} [:=] \s{{0,3}} (?: \w{{1,20}} \s+ (?=[^\s"\\]) )? )
    ) (?! \*{{3}} (?:\W|$) ) (
        '(?:[^'"\\]|\\.)*' | \\"(?:[^"\\]|\\\\)*\\" | "[^"\s,:}}\]\\](?:[^"\\]|\\.)*"
      | \{{[^{{}}"]*\}} | [^\s&"\#<>\\]+ )"""
)
# A secret as an entry of JSON, or of a dict of Python, also within another text of JSON.
_ENTRY = re.compile(
    rf"""(?ix) ( (?: {_WORDS} | {_MORE} | authorization ) (\\{{0,9}}["']) \s{{0,3}}:\s{{0,3}} \2 )
    (?: (?!\2) (?:\\.|[^\\]) )* \2"""
)
# What is a secret by its own form: tokens of GitHub and Hugging Face, keys of AWS, JWT, PEM.
_TOKEN = re.compile(
    r"""(?xs) (?<![\w-]) (?: gh[pousr]_[A-Za-z0-9]{36} | github_pat_\w{60,}
      | hf_[A-Za-z0-9]{30,} | A[KS]IA[0-9A-Z]{16} | eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]*
      | (?<=[Bb]earer\ ) [\w.~+/-]{16,} ) (?!\w) =*
      | (?<=PRIVATE\ KEY-----) [^"-]+ (?=-----END)"""
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
        shown = _without_logins(shown)
    if "%40" in shown:
        shown = _ESCAPED_LOGIN.sub(r"\1***%40", shown)
    if any(mark in shown for mark in "=:%"):  # rare, and most names pass here
        shown = _ENTRY.sub(r"\1***\2", _SECRET.sub(_without_value, shown))
    return _TOKEN.sub("***", shown)


def _without_logins(text: str) -> str:
    kept, done, end, last = list[str](), 0, 0, -1
    for found in _ADDRESS.finditer(text):
        start = found.end()
        if start < done:
            continue
        if start >= end:
            end = _RUN.match(text, start).end()  # type: ignore[union-attr]
            last = text.rfind("@", start, end)
        at = last
        if not _USER.match(text, start, end):
            host = _HOST.match(text, start, end)
            at = text.rfind("@", start, host.end()) if host and found[0].endswith("//") else -1
        if at >= start:
            kept += [text[done:start], "***@"]
            done = at + 1
    return "".join([*kept, text[done:]])


def _without_value(found: re.Match[str]) -> str:
    name, value = found.groups()
    is_quoted = re.match(r"""\\?["']|\{""", value)
    return f"{name}***{'' if is_quoted else value[len(value.rstrip(')]},;.:')) :]}"


def escaped(text: object) -> str:
    """Return text as one line that a terminal only shows; controls are escaped.

    Labels and groups are stored so: no program after it has to care again.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def printable(text: object) -> str:
    """Return text as one line that a terminal only shows, without secrets."""
    return escaped(redact(text))


def shorten(text: object, width: int = 60) -> str:
    """Redact a text, then truncate it; half an address may hide its secret."""
    shown = redact(text)
    return shown if len(shown) <= width else f"{shown[: width - 3]}..."


def reason(error: BaseException, width: int = 300) -> str:
    """Return what an error says, on one line; its name if that is nothing."""
    return shorten(printable(" ".join(str(error).split())), width) or type(error).__name__


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
