"""Names that are programs in some little language that a name may reach."""

from __future__ import annotations

HOSTILE = (
    "$x^{$ and $_y$",  # a formula of matplotlib that cannot be drawn
    "=1+cmd|' /C calc'!A0",  # a formula of a spreadsheet
    "+1", "-1+1", "@SUM(1)", "\uff1d1+1",
    "\x1b[31mred\x1b]0;title\x07",  # colours, and a title of the terminal
    "line\nerror: forged", "back\rward", "bell\x07", "c1 \x9b31m",
    "\u202egpj.exe", "\u2066isolated",  # writing from right to left
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a&amp;b",
    "{{ 7*7 }}", "{% raise %}", "{0.__class__}", "%s%n%(name)s",
    "[link](javascript:alert(1))", "**bold** `code`", "| cell |", "# head", "[red]markup[/nope]",
    "'; DROP TABLE runs; --", 'quo"te', "back\\slash", "comma,semi;colon\ttab",
    "\udcff\udcfe",  # bytes of a file name that are no UTF-8
    "\u00e4\u6f22\U0001f3b5", "x" * 300, " ", "..", "a/b", "nul\x00l",
)  # fmt: skip

# Class names that a manifest can hold: no zero byte, no line end, not empty.
CLASSES = ("$x^{$ and $_y$", "=1+1\x1b[31m\u202e", "<b>[red]{{7*7}}%s, '`*|")
