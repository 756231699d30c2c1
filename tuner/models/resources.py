"""Resource request of a trial: workers, their CPUs and GPUs, and the nodes for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import Field

from pipelines.settings import Block

MAX_WORKERS = 1024
Count: TypeAlias = Annotated[int, Field(ge=1, le=MAX_WORKERS, strict=True)]
# The syntax of Kubernetes, which Ray takes.
_WORD = r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_LABEL = re.compile(rf"({_WORD}/)?{_WORD}=!?({_WORD}|in\({_WORD}(, ?{_WORD})*\))")


class Resources(Block):
    """Resources of one trial."""

    workers: int = Field(1, ge=1, le=MAX_WORKERS, description="Processes that train one trial.")
    elastic: Annotated[tuple[Count, Count], Field(strict=False)] | None = Field(
        None,
        description="Fewest and most workers, instead of `workers`: a trial takes as many as are "
        "free when it starts, and goes on with what is left when it loses one.",
    )
    cpus_per_worker: int = Field(1, ge=1, le=4096, description="CPU cores of each worker.")
    gpus_per_worker: float = Field(
        0.0, ge=0, le=64, description="GPUs of each worker; a fraction only with one worker."
    )
    labels: dict[str, str] = Field(
        {},
        description="Labels of the nodes that may run it, such as "
        '`{ray.io/accelerator-type: A100}`; `"in(A100, H100)"` is one of several, `"!T4"` all '
        "others.",
    )

    def __hash__(self) -> int:
        """Hash the labels too, which are a mapping."""
        return hash(self.model_dump_json())

    @property
    def fewest(self) -> int:
        """Fewest workers that a trial runs on."""
        return self.elastic[0] if self.elastic else self.workers

    @property
    def most(self) -> int:
        """Most workers that a trial runs on."""
        return self.elastic[1] if self.elastic else self.workers

    @property
    def is_alone(self) -> bool:
        """True if a trial always has one worker, which needs no others to train with."""
        return self.most == 1

    def of(self, workers: int) -> tuple[float, float]:
        """Return the CPUs and GPUs of a number of workers."""
        return workers * self.cpus_per_worker, workers * self.gpus_per_worker

    def devices(self, workers: int | None = None) -> float:
        """Return the devices of workers, by default of the most: GPUs, or CPU cores without."""
        cpus, gpus = self.of(workers or self.most)
        return gpus or cpus

    @property
    def in_words(self) -> str:
        """The request on one line."""
        workers = f"{self.fewest} to {self.most}" if self.elastic else f"{self.workers}"
        labels = "".join(f", {key}={rule}" for key, rule in self.labels.items())
        each = f"{self.cpus_per_worker} CPU, {self.gpus_per_worker:g} GPU"
        return f"{workers} worker(s) x {each}{labels}"

    @property
    def odd_label(self) -> str | None:
        """A label that is written in a way that Ray does not take; None without one."""
        written = (f"{key}={rule}" for key, rule in self.labels.items())
        return next((one for one in written if not _LABEL.fullmatch(one)), None)

    def may_run_on(self, labels: Mapping[str, str]) -> bool:
        """Return True if a node with these labels may run a worker."""
        return all(_holds(rule, labels.get(key)) for key, rule in self.labels.items())


def _holds(rule: str, value: str | None) -> bool:
    among = rule.removeprefix("!").removeprefix("in(").removesuffix(")")
    return (value in {one.strip() for one in among.split(",")}) != rule.startswith("!")
