"""The states of trials and studies: one word for each, wherever it shows."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """How a trial or a study stands.

    Attributes:
        RUNNING: The ledger records no end of it.
        COMPLETED: It did all that was asked for.
        STOPPED_EARLY: The scheduler found it behind, or the budget of the search ended. It keeps
            what it reached and takes part in the ranking; it goes on if it is promoted.
        FAILED: An error ended it.
        INTERRUPTED: A signal, a full disk or the death of the driver ended it; it continues when
            the study does.
    """

    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED_EARLY = "stopped early"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def key(self) -> str:
        """The word as a name of JSON, metrics and columns."""
        return self.replace(" ", "_")


ENDS = tuple(state for state in State if state is not State.RUNNING)
# Words of version 0.1 ledgers, which are translated when they are read.
OLD_WORDS = {"stopped": State.STOPPED_EARLY, "done": State.COMPLETED}
