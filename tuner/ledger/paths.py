"""Where a study lives and gets its audio."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipelines.sources.files import printable_root


@dataclass(frozen=True)
class Place:
    """The folders of a study.

    Attributes:
        storage: the folder of all studies and feature sets.
        name: of the study.
        data: folder or manifest of the audio, or a URI, which may hold a secret.
    """

    storage: Path
    name: str
    data: str | Path = field(repr=False)

    @property
    def data_shown(self) -> str:
        """Where the audio is, as it may be written down: without what a URI holds of secrets."""
        return printable_root(
            str(self.data.resolve()) if isinstance(self.data, Path) else self.data
        )

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
