"""How much of a data set may be lost before a build stops."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """What a build puts up with.

    Attributes:
        max_bad_share: bad files as a share of the listed ones.
        drop_lost_classes: go on without a class that lost all of its files.
    """

    max_bad_share: float = 0.2
    drop_lost_classes: bool = False
