"""Errors of the tuner, in one tree.

TunerError              exit code 1: the run failed
  UsageError            exit code 2: the command line asks for something impossible
    ConfigError         the space file is wrong; carries every problem found, each with its place
    SpaceError          one range, or one set of sampled values, is wrong
    StudyExistsError    the study's folder holds a study with other settings; says what differs
    WeightsError        the weights that a model shall start from cannot be had, or do not fit it
  StudyError            the study cannot go on
  TrackingError         the tracking server or its store cannot be used
  ClusterError          Ray cannot be joined or started
  DivergedError         a trial's loss is no longer finite; ends the trial, not the study
  CheckpointError       a checkpoint is damaged, incomplete or of an unknown version
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class TunerError(Exception):
    """Anything a user can cause or repair; the command lines print it without a traceback."""

    exit_code: int = 1


class UsageError(TunerError):
    """The command asks for something that cannot be done; nothing was started."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a space file.

    Attributes:
        file: The file as the user named it, or ``--set a.b`` for an override.
        line: Line, from 1.
        column: Column in characters, from 1.
        path: Dotted path of the setting, empty when the fault is in the text itself.
        message: What is wrong, the value, and what was meant.
    """

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: "
        return place + (f"{self.path}: " if self.path else "") + self.message


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


class WeightsError(UsageError):
    """The weights that a model shall start from cannot be had, or do not fit it."""


class StudyError(TunerError):
    """The study cannot go on."""


class TrackingError(TunerError):
    """The tracking server or its store cannot be used."""


class CheckpointError(TunerError):
    """A checkpoint is damaged, incomplete or of an unknown version."""


class ClusterError(TunerError):
    """Ray cannot be joined or started."""


class DivergedError(TunerError):
    """A trial's loss is no longer finite; ends the trial, never the study.

    Attributes:
        epoch: in which it was found, from 1.
        learning_rate: of the step.
        step: in the epoch, from 1.
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
