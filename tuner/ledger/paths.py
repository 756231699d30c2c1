"""Addresses of a study's state and audio."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.sources.files import printable_root

if TYPE_CHECKING:
    from pipelines.storage import Folder


@dataclass(frozen=True)
class StudyPaths:
    """Folders of a study.

    Attributes:
        storage: Folder of all studies and feature sets.
        name: Name of the study.
        data: Folder or manifest of the audio, or a URI, which may contain a secret.
    """

    storage: Folder
    name: str
    data: str | Path = field(repr=False)

    @property
    def data_shown(self) -> str:
        """Address of the audio without the secrets of a URI, safe to write down."""
        return printable_root(
            str(self.data.resolve()) if isinstance(self.data, Path) else self.data
        )

    @property
    def folder(self) -> Folder:
        """Folder of the study."""
        return self.storage / "studies" / self.name

    @property
    def features(self) -> Folder:
        """Folder of the feature sets, shared by all studies of the storage."""
        return self.storage / "features"
