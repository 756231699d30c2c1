"""Where a study lives and gets its audio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Place:
    """The folders of a study.

    Attributes:
        storage: the folder of all studies and feature sets.
        name: of the study.
        data: folder or manifest of the audio.
    """

    storage: Path
    name: str
    data: Path

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.storage / "studies" / self.name

    @property
    def features(self) -> Path:
        """The folder of feature sets, shared by all studies of the storage."""
        return self.storage / "features"

    @property
    def ledger(self) -> Path:
        """The study's journal."""
        return self.folder / "ledger.jsonl"
