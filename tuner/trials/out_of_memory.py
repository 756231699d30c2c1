"""What a trial does when memory runs out: once more, with each batch in twice as many parts.

The batch itself, its order and its augmentation stay the same; half as many clips are worked on at
once, and their gradients are added up. That it happened is kept in the trial's folder, so that a
trial that goes on in another process does the same.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from tuner.training.checkpoint import write_json

if TYPE_CHECKING:
    from pathlib import Path

FILE = "out_of_memory.json"
FACTOR = 2  # times more parts
# torch has a class for its GPU allocator only; others raise a plain RuntimeError.
WORDS = (
    "DefaultCPUAllocator", "not enough memory", "Cannot allocate memory",
    "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
)  # fmt: skip
MAX_REASON = 200


@dataclass(frozen=True)
class HalvedBatch:
    """That a trial ran out of memory.

    Attributes:
        epoch: in which it did, from 1.
        reason: what the allocator said.
        again: whether it was not enough either.
    """

    epoch: int
    reason: str
    again: bool = False

    def __str__(self) -> str:
        return f"out of memory in epoch {self.epoch}, went on with half the clips at once"

    def write(self, trial: Path) -> None:
        """Keep it in the trial's folder."""
        write_json(trial / FILE, asdict(self))

    @classmethod
    def read(cls, trial: Path) -> HalvedBatch | None:
        """What an earlier try of the trial has left; None when memory was enough so far."""
        path = trial / FILE
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text())
            return cls(int(found["epoch"]), str(found["reason"]), found.get("again") is True)
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return cls(1, "the note of it cannot be read")  # that it is there is what matters


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)


def reason_of(error: BaseException) -> str:
    """The first line of what an allocator said."""
    lines = str(error).strip().splitlines()
    return lines[0][:MAX_REASON] if lines else type(error).__name__
