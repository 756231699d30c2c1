"""The report of a study: one page that says who won and whether to believe it, and tables."""

from __future__ import annotations

from tuner.report.page import write_report

__all__ = ["write_report"]
