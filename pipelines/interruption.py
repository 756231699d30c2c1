"""SIGINT, SIGTERM and SIGHUP for a command line: an orderly end, or a hard one within seconds."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ContextDecorator, suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

RESTARTED = "TUNER_RUNS_AGAIN"  # in the environment of a command that has started itself again
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# With three last acts they stay below 10 s, after which a supervisor sends SIGKILL
# (`docker stop`).
ORDERLY_SECONDS = 4.5
LAST_ACT_SECONDS = 1.5
# After a failure that was noticed late already, of something that the block may wait for.
FAILED_SECONDS = 2.0
# `timeout` and others send a signal to the process and to its group, which count as one request.
SAME_REQUEST_SECONDS = 0.7


class Interrupted(BaseException):  # a request, not a fault
    """A signal asked the process to end; not an ``Exception``, so that no handler swallows it.

    Attributes:
        exit_code: Exit code of the process, 128 and the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Interruption(ContextDecorator):
    """How a command ends after a signal; a context manager, or decorator, of all of its work.

    The first signal raises `Interrupted` in the main thread; when the block has unwound, the
    advice is printed and the process exits with 128 and the signal's number. The exception can be
    late or lost, in compiled code that waits or in a library that catches everything. Therefore a
    thread watches: after ``orderly_seconds``, or at once after a second signal, it runs the last
    acts and ends the process.

    Args:
        advice: Returns what the user reads at the end; called in any thread, at any moment.
        orderly_seconds: Time limit for the block to unwind.

    Attributes:
        last_acts: Functions called in order before a hard end, each for ``LAST_ACT_SECONDS``.
        tries_again: True if the command starts itself again, once, after a failure that may pass.
    """

    def __init__(
        self, advice: Callable[[], str], orderly_seconds: float = ORDERLY_SECONDS
    ) -> None:
        self.advice = advice
        self._orderly_seconds = orderly_seconds
        self.last_acts: list[Callable[[], object]] = []
        self.tries_again = False
        self._failure = ""
        self._number: int | None = None
        self._received: list[int] = []  # including the signal that `fail` sends
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Install the handlers; a SIGHUP that the parent process ignores stays so."""
        self._process_id = os.getpid()
        self._environment = dict(os.environ)  # a hard end may come while the block has changed it
        self._near, self._far = socket.socketpair()
        self._far.setblocking(False)
        signal.set_wakeup_fd(self._far.fileno(), warn_on_full_buffer=False)
        # The interpreter writes a signal's number there when it arrives, even if the main thread
        # is in compiled code. A forked child must not.
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        for number in SIGNALS:
            before = signal.getsignal(number)
            if number != signal.SIGHUP or before is not signal.SIG_IGN:  # nohup
                self._before[number] = signal.signal(number, self._on_signal)
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._on_lost
        threading.Thread(target=self._watch, name="interruption", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Exit after a signal, whatever it was turned into on the way; else undo ``__enter__``."""
        is_interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
        if is_interrupted or (self._number and error and not isinstance(error, SystemExit)):
            self._end(self._number or signal.SIGINT)
        sys.unraisablehook = self._unraisable
        signal.set_wakeup_fd(-1)
        self._far.send(b"\0")
        # SIGINT last, because the handler before raises a KeyboardInterrupt.
        for number, handler in reversed(self._before.items()):
            signal.signal(number, handler)  # type: ignore[arg-type]

    def fail(self, failure: str, is_transient: bool) -> None:
        """End the command as after a signal, from any thread, with an error and exit code 1.

        Does nothing if a signal has come: it may be the cause of the failure.

        Args:
            failure: Sentence for the user.
            is_transient: True if the command may work when it is started once more.
        """
        if self._number is None and not self._received:
            self._failure, self._orderly_seconds = failure, FAILED_SECONDS
            self.tries_again &= is_transient and RESTARTED not in os.environ
            # Not SIGTERM, which Ray takes for itself while it starts.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process_id:  # a child that has not become its program yet
            os._exit(128 + number)
        if self._number is not None:
            return
        self._number = number
        signal.alarm(0)  # by Ray, if it has not connected yet: to abort in 3 s
        while frame and frame.f_code is not Interruption.__exit__.__code__:
            frame = frame.f_back
        if frame:  # in the end of the block, which nothing guards any more
            self._end(number)
        raise Interrupted(number)

    def _on_lost(self, found: Any) -> None:
        # Raised where Python can only print it, as beside a fork; the watch ends the process.
        if not isinstance(found.exc_value, Interrupted):
            self._unraisable(found)

    def _watch(self) -> None:
        # The main thread must take them: they end the wait that it is in, or it has blocked them.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        number = self._wait()
        if number == 0:
            self._near.close()
            self._far.close()
            return
        limit = time.monotonic() + self._orderly_seconds
        time.sleep(SAME_REQUEST_SECONDS)
        self._receive_rest()
        select.select([self._near], [], [], max(0.0, limit - time.monotonic()))
        for act in self.last_acts:
            thread = threading.Thread(target=act, daemon=True)
            thread.start()
            thread.join(LAST_ACT_SECONDS)
        self._end(number)

    def _wait(self) -> int:
        """Wait for the next of our signals, or for 0, the end of the block."""
        while (number := self._near.recv(1)[0]) and number not in self._before:
            pass
        self._received += [number] if number else []
        return number

    def _receive_rest(self) -> None:
        with suppress(OSError):  # no more, or the block has ended
            while number := self._near.recv(1, socket.MSG_DONTWAIT)[0]:
                self._received += [number] if number in self._before else []

    def _end(self, number: int) -> NoReturn:
        """Say how to go on, and exit at once: a partly started Ray crashes at a regular exit."""
        self._receive_rest()
        if self._failure:
            with suppress(ValueError):
                self._received.remove(signal.SIGINT)  # our own
            number = next(iter(self._received), 0)
        goes_on = self._failure and self.tries_again and not number
        with suppress(OSError, ValueError):  # nobody listens any more
            sys.stdout.flush()
            sys.stderr.flush()
            said = f"error: {self._failure}\n" if self._failure else ""
            said = f"{self._failure}; trying once more" if goes_on else said + self.advice()
            os.write(2, f"{said}\n".encode())
        if goes_on:
            with suppress(OSError):
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
                words = [sys.executable, *sys.orig_argv[1:]]
                os.execve(words[0], words, {**self._environment, RESTARTED: "1"})
        os._exit(128 + number if number else 1)
