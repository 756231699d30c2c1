"""Checks of this machine before a study: ``python -m tuner.doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        name: Subject of the check.
        status: FAIL if a study would not run.
        detail: Finding.
        remedy: Remedy; empty if there is nothing to do.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""

    def line(self) -> str:
        """Return the result as one line of text."""
        remedy = f" - {self.remedy}" if self.remedy else ""
        return f"{self.status:4} {self.name}: {self.detail}{remedy}"
