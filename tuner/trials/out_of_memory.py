"""Memory that runs out in a trial: how it is known, and the note that the trial keeps of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from pipelines.plain_text import shorten
from pipelines.storage import Folder

FILE = "out_of_memory.json"
# torch has an exception class for its GPU allocator only; others raise a plain RuntimeError.
WORDS = (
    "DefaultCPUAllocator", "not enough memory", "Cannot allocate memory",
    "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
)  # fmt: skip
MAX_REASON = 200


@dataclass(frozen=True)
class OutOfMemory:
    """Note that a trial ran out of memory, so that it continues with half the clips at once.

    Each batch is split into twice as many micro-batches, whose gradients are added up; the batch,
    its order and its augmentation stay the same. The note is in the trial's folder, so a trial
    that continues in another process does the same.

    Attributes:
        epoch: Epoch in which memory ran out, from 1.
        reason: Message of the allocator.
        again: True if it ran out again with half the clips.
    """

    epoch: int
    reason: str
    again: bool = False

    def __str__(self) -> str:
        return f"out of memory in epoch {self.epoch}, continued with half the clips at once"

    def write(self, trial: Folder) -> None:
        """Write the note into the trial's folder."""
        trial.write_json(FILE, asdict(self))

    @classmethod
    def read(cls, trial: Folder) -> OutOfMemory | None:
        """Read the note of an earlier attempt; None if memory has been enough so far."""
        try:
            found = trial.read_json(FILE)
            return cls(int(found["epoch"]), str(found["reason"]), found.get("again") is True)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return cls(1, "the note cannot be read")  # its existence is what matters


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an exception says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)


def reason_of(error: BaseException) -> str:
    """Return the first line of an allocator's message."""
    lines = str(error).strip().splitlines()
    return shorten(lines[0], MAX_REASON) if lines else type(error).__name__
