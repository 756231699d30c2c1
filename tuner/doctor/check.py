"""One finding about this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: FAIL when a study would not run.
        detail: what was found.
        remedy: what to do; empty when nothing is to be done.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""

    def line(self) -> str:
        """The finding for a person."""
        return f"{self.status:4} {self.name}: {self.detail}" + (
            f" - {self.remedy}" if self.remedy else ""
        )
