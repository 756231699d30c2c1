"""How much of a data set may be lost before a build stops."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.errors import SpecError


@dataclass(frozen=True)
class Tolerance:
    """What a build puts up with.

    Attributes:
        max_bad_share: bad files as a share of the listed ones.
        drop_lost_classes: go on without a class that lost all of its files.
    """

    max_bad_share: float = 0.2
    drop_lost_classes: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad_share <= 1:
            raise SpecError(
                f"max_bad_share must be from 0 to 1, not {self.max_bad_share:g}; 5 % is 0.05"
            )
