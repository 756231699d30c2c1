"""How a command line ends: an error as one line with its exit code, a signal as advice."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import format_exception

from pipelines.errors import UserError
from pipelines.interruption import Interruption
from pipelines.plain_text import echo


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
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if verbose:
            raise
        where = f"{error.filename}: " if error.filename else ""
        echo(f"error: {where}{error.strerror or error}", err=True)
        sys.exit(1)
