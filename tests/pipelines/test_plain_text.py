"""Text of users in a terminal, in CSV and in Markdown; each expected text is written by hand."""

from __future__ import annotations

import csv
import html
import io
import json
import logging
import re
import sys
import time
import unicodedata

import pytest
from markdown_it import MarkdownIt

from pipelines.command import ending
from pipelines.plain_text import code, echo, for_cell, for_markdown, printable, redact
from tests.hostile_names import HOSTILE


@pytest.mark.parametrize("name", HOSTILE)
def test_a_terminal_obeys_no_name(name: str) -> None:
    text = printable(f"file {name} read")
    # Cc: controls, Cs: half characters, Zl and Zp: ends of lines; the others turn the direction.
    assert not {unicodedata.category(one) for one in text} & {"Cc", "Cs", "Zl", "Zp"}
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {unicodedata.bidirectional(one) for one in text} & turning
    assert printable(text) == text
    text.encode()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_spreadsheet_runs_no_name(name: str) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerow([for_cell(name), "next"])
    ((cell, after),) = csv.reader(io.StringIO(out.getvalue(), newline=""))
    assert after == "next"
    assert cell.strip()[:1] not in tuple("=+-@\uff1d")
    assert cell in (printable(name), f"'{printable(name)}")


def test_cells_that_are_no_text_stay_what_they_are() -> None:
    assert [for_cell(value) for value in (-0.5, 3, None, "rock")] == [-0.5, 3, None, "rock"]


@pytest.mark.parametrize("name", [*HOSTILE, "_a_ __b__", "``", "~~a~~", "&#36;", "b|`"])
def test_markdown_shows_a_name_as_it_is(name: str) -> None:
    """In a table, where most marks mean something; markdown-it is a judge of its own."""
    page = f"| a | b |\n| - | - |\n| x{for_markdown(name)}y | {code(f'x{name}y')} |\n"
    shown = html.escape(f"x{printable(name)}y", quote=False).replace('"', "&quot;")
    cells = re.findall("<td>(.*)</td>", MarkdownIt("gfm-like", {"linkify": False}).render(page))
    assert cells == [shown, f"<code>{shown}</code>"]


def test_names_stay_readable_in_markdown() -> None:
    assert for_markdown("drum & bass, hip_hop") == "drum & bass, hip_hop"
    assert [code(name) for name in ("`a", " a", "")] == ["`` `a ``", "`  a `", "`  `"]


def test_lines_are_kept_and_an_encoding_that_lacks_a_character_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stderr", stream)
    echo("error: first\n  \u00e4 \x1b[2J", err=True)
    assert stream.buffer.getvalue() == b"error: first\n  \\xe4 \\x1b[2J\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://me:SECRET@host:5000/x and a@b.c", "see https://***@host:5000/x and a@b.c"),
        ("http://me:SE/CR@ET@host/x", "http://***@host/x"),
        ("http://SECRET@host", "http://***@host"),
        ("http://localhost:5000/@me", "http://localhost:5000/@me"),
        ("s3://KEYSECRET:SECRET@b/x?region=r", "s3://***@b/x?region=r"),
        ("postgresql+psycopg://h/d?user=u&password=SECRET&sslmode=x",
         "postgresql+psycopg://h/d?user=u&password=***&sslmode=x"),
        ("host=h password='SEC RET' dbname=d", "host=h password=*** dbname=d"),
        ("https://b/x?X-Amz-Credential=SECRET%2F&X-Amz-Date=SECRET&n=1",
         "https://b/x?X-Amz-Credential=***&X-Amz-Date=***&n=1"),
        ("https://b/x?sv=1&sig=SEC%2BRET", "https://b/x?sv=1&sig=***"),
        ("https://b/x?AWSAccessKeyId=SECRET&Signature=SECRET",
         "https://b/x?AWSAccessKeyId=***&Signature=***"),
        ("https://b/x#access_token=SECRET", "https://b/x#access_token=***"),
        ("AccountName=a;AccountKey=SECRET==;Suffix=s and", "AccountName=a;AccountKey=*** and"),
        ("http://u:it's(SECRET)!@h/x, a@b.c", "http://***@h/x, a@b.c"),
        (f"https://oauth2:{'x' * 5000}SECRET@h/x", "https://***@h/x"),
        ("http://h/a,s3://k:SECRET@b", "http://h/a,s3://***@b"),
        ("//me:SECRET@host", "//***@host"),
        ("http%3A%2F%2Fu%3ASECRET%40h", "http%3A%2F%2F***%40h"),
        ("(password=ab(SECRET).", "(password=***)."),
        ("DRIVER=x;PWD={SEC RET};n=1", "DRIVER=x;PWD=***;n=1"),
        ("x?secret_key=SECRET&secretKey=SECRET&pass=SECRET&jwt=SECRET",
         "x?secret_key=***&secretKey=***&pass=***&jwt=***"),
        ("password: SECRET\npassword = SECRET", "password: ***\npassword = ***"),
        ('{"password": "SEC RET", "n": 1}', '{"password": "***", "n": 1}'),
        ("{'Authorization': 'Bearer SECRET', 'n': 1}", "{'Authorization': '***', 'n': 1}"),
        (f"see ghp_{'SECRET' * 6} here", "see *** here"),
        ('{"password": "\\"SECRET"}', '{"password": "***"}'),
        ('{"pwd": " SECRET", "authorization": 0.5}', '{"pwd": "***", "authorization": 0.5}'),
        ('{"e": "{\\"token\\": \\"SECRET\\"}"}', '{"e": "{\\"token\\": \\"***\\"}"}'),
        ("/home/hf_music_classification_data/hf_urbansound8k_dogbark_loop.wav",
         "/home/hf_music_classification_data/hf_urbansound8k_dogbark_loop.wav"),
        ("unexpected token: 'x' my secret = love.flac, secretary=me OLDPWD=/d",
         "unexpected token: 'x' my secret = love.flac, secretary=me OLDPWD=/d"),
        ("time_signature=4-4 key=C key signature=C", "time_signature=4-4 key=C key signature=C"),
        ("D:/a:b/12:30@x.wav me@x.org", "D:/a:b/12:30@x.wav me@x.org"),
        ("AWS_ACCESS_KEY_ID=SECRET/+ HF_TOKEN=SECRET", "AWS_ACCESS_KEY_ID=*** HF_TOKEN=***"),
        ("Authorization: Basic U0VDUkVU", "Authorization: Basic ***"),
        ('{"uri": "http://u:SECRET@h", "n": 1}', '{"uri": "http://***@h", "n": 1}'),
        ('{"e": "password=\\"SEC RET\\" x"}', '{"e": "password=*** x"}'),
        ("models:/NAME@champion optim.lr=1 monkey=1", "models:/NAME@champion optim.lr=1 monkey=1"),
        ("http://h/#/e/1/runs?workflowType=m&viewStateShareKey=k",
         "http://h/#/e/1/runs?workflowType=m&viewStateShareKey=k"),
    ],
)  # fmt: skip
def test_no_secret_is_shown_anywhere(text: str, shown: str) -> None:
    assert redact(text) == redact(shown) == shown
    for show in (printable, for_markdown, code, redact):
        assert "SECRET" not in str(show(text))


@pytest.mark.parametrize(
    "end", ["token=", "token='", 'password="', "://u:p", "://u:p\\", "sig=\\", "authorization: a "]
)
def test_redacted_json_is_json(end: str) -> None:
    found = json.dumps({"a": f"see {end}", "b": ["it's", f"{end}x", end], "c": "x@y"})
    told = json.loads(redact(found))
    assert (list(told), len(told["b"]), told["c"]) == (["a", "b", "c"], 3, "x@y")


def test_words_of_libraries_and_tracebacks_are_shown_as_our_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    bad = "\x1b[2J http://u:SECRET@h"
    with ending():
        record = logging.makeLogRecord({"msg": bad, "levelno": logging.WARNING})
        assert logging.lastResort is not None
        logging.lastResort.handle(record)  # what is called while nobody has set up a handler
    sys.excepthook(ValueError, ValueError(bad), None)
    shown = "\\x1b[2J http://***@h\n"
    assert capsys.readouterr().err == f"{shown}ValueError: {shown}"


@pytest.mark.parametrize(
    "text",
    [
        "://a:b" * 20_000 + "@",
        "a." * 50_000 + "=",
        "x-amz-" * 20_000,
        "-eyJaaaaaaaaaa" * 15_000,
        "://%" * 50_000 + "%40",
    ],
)
def test_a_long_text_is_redacted_in_linear_time(text: str) -> None:
    started = time.process_time()
    redact(text)
    assert time.process_time() - started < 2
