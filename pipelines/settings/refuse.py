"""Settings that cannot work are refused where they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable


def refuse(faults: Iterable[str]) -> None:
    """Raises when there is any fault.

    Raises:
        SpecError: All faults, in one text.
    """
    if texts := list(faults):
        raise SpecError("; ".join(texts))
