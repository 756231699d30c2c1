"""How a command line ends: an error as one line with its exit code, a signal as advice."""

from __future__ import annotations

import atexit
import gc
import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import format_exception
from typing import Any, NoReturn

import click

from pipelines.errors import UserError
from pipelines.interruption import Interruption
from pipelines.plain_text import echo


class Command(click.Command):
    """A command that has ``-h`` and answers a wrong word as it answers any other error."""

    def __init__(self, *args: Any, **options: Any) -> None:
        own = {"help_option_names": ["-h", "--help"]}
        options["context_settings"] = own | options.get("context_settings", {})
        super().__init__(*args, **options)

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run the command and exit; what click says of its words is printed without secrets."""
        for stream in (sys.stdout, sys.stderr):  # a name may have what a terminal's encoding lacks
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        atexit.register(gc.freeze)  # a last look for garbage takes a second and is of no use
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except click.ClickException as error:
            error.show(text := io.StringIO())
            echo(text.getvalue().rstrip("\n"), err=True)
            code = error.exit_code
        except click.Abort as error:
            if not isinstance(error.__cause__, KeyboardInterrupt):  # click takes EOFError for one
                raise error.__cause__ or error from None
            code = 130
        sys.exit(code if isinstance(code, int) else 0)


class Group(Command, click.Group):
    """Commands of this program under one name."""


class _Printed(logging.Handler):
    """Messages of all libraries, printed as those of this program are."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message."""
        echo(record.getMessage(), err=True)


@contextmanager
def ending(
    advice: Callable[[], str] = lambda: "interrupted", verbose: bool = False
) -> Iterator[Interruption]:
    """Run the work of a command; exit after an error that a user can do something about.

    Args:
        advice: Returns what the user reads after a signal.
        verbose: True to show the traceback of an error.

    Yields:
        The handler of signals.
    """
    logging.lastResort = _Printed(logging.WARNING)
    sys.excepthook = lambda *error: echo("".join(format_exception(*error)).rstrip("\n"), err=True)
    try:
        with Interruption(advice) as stop:
            yield stop
    except UserError as error:
        if verbose:
            raise
        # A name of someone else's must not pass for a line of ours.
        echo(f"error: {error}".replace("\n", "\n  "), err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if verbose:
            raise
        where = f"{error.filename}: " if error.filename else ""
        echo(f"error: {where}{error.strerror or error}", err=True)
        sys.exit(1)
