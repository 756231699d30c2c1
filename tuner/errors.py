"""Errors of the tuner, all of which are a ``pipelines.errors.UserError``.

```
UserError                 exit 1
├── UsageError            exit 2   the command asks for something impossible
│   ├── ConfigError                the space file is wrong; holds every fault with its place
│   ├── SpaceError                 one range, or one set of sampled values, is wrong
│   └── StudyExistsError           the folder holds a study with other settings; says which
├── StudyError                     the study cannot go on
├── TrackingError                  the tracking server or its store cannot be used
│   └── StoreAwayError             it does not answer now, and may do so later
├── DivergedError                  a loss is not finite; ends the trial, not the study
└── CheckpointError                a checkpoint is damaged, incomplete or of an unknown version
```
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pipelines.errors import UserError
from pipelines.plain_text import echo, reason


@contextlib.contextmanager
def decorating(what: str, on_failure: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Turn any failure in the block into one line of warning: it costs no result.

    Args:
        what: What the block makes, as the subject of a sentence.
        on_failure: Called after a failure.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, it decorates
        why = f"{type(error).__name__}: {reason(error)}"
        on_failure()
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more
            echo(f"warning: {what} could not be made ({why}); the result stands", err=True)


class UsageError(UserError):
    """The command asks for something impossible; nothing was started."""

    exit_code = 2


FLAGS = {
    "--name": "name", "--trials": "search.trials", "--budget": "search.budget",
    "--data": "data.root", "--label": "data.label", "--audio-root": "data.audio_root",
}  # fmt: skip
"""Options of ``tuner.run`` that set a setting, which messages call by the word of the user."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a space file.

    Attributes:
        file: The file as the user named it, or ``--set a.b`` or ``--name`` for an override.
        line: Line, from 1.
        column: Column in characters, from 1.
        path: Dotted path of the setting, empty when the fault is in the text itself.
        message: Description of the fault, with the value and a suggestion.
    """

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        is_option = self.file in FLAGS or self.file.startswith("--set ")  # a line of its own
        place = self.file if is_option else f"{self.file}:{self.line}:{self.column}"
        path = "" if self.path in (FLAGS.get(self.file), self.file[6:]) else self.path
        return ": ".join(filter(None, (place, path, self.message)))


class ConfigError(UsageError):
    """A space file, or an override of it, is wrong.

    Attributes:
        problems: Every problem found, in the order of the file.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class SpaceError(UsageError):
    """A range cannot be made from these arguments, or a value does not belong to its range."""


class StudyExistsError(UsageError):
    """A study of this name exists and was started with other settings.

    Attributes:
        study: Name of the study.
        differences: One line for each setting that differs.
    """

    def __init__(self, study: str, differences: Iterable[str]) -> None:
        self.study = study
        self.differences: tuple[str, ...] = tuple(differences)
        super().__init__(study, self.differences)

    def __str__(self) -> str:
        head = f"study {self.study!r} exists with other settings; choose another --name, or undo:"
        return "\n".join([head, *(f"  {difference}" for difference in self.differences)])


class StudyError(UserError):
    """The study cannot go on."""


class TrackingError(UserError):
    """The tracking server or its store cannot be used."""


class StoreAwayError(TrackingError):
    """The tracking server or its store does not answer now, and may do so later."""


class CheckpointError(UserError):
    """A checkpoint is damaged, incomplete or of an unknown version."""


class DivergedError(UserError):
    """The loss of a trial is not finite; ends the trial, never the study.

    Attributes:
        epoch: Epoch of the step, from 1.
        learning_rate: Learning rate of the step.
        step: Step in the epoch, from 1.
    """

    def __init__(self, epoch: int, learning_rate: float, step: int) -> None:
        super().__init__(epoch, learning_rate, step)
        self.epoch = epoch
        self.learning_rate = learning_rate
        self.step = step

    def __str__(self) -> str:
        rate = f"{self.learning_rate:.3g}"
        place = f"epoch {self.epoch}, step {self.step}"
        return f"the loss is not finite in {place}, at learning rate {rate}"
