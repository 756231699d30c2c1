"""Data sets on disk for tests of catalogs: empty files, manifests, what became of the rows."""

from __future__ import annotations

from pathlib import Path

from pipelines.sources.tracks import Catalog


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def write(root: Path, text: str | bytes, name: str = "manifest.csv") -> Path:
    root.mkdir(exist_ok=True)
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def codes(catalog: Catalog) -> list[tuple[str, str, str]]:
    """Path, label and code of each track, in order."""
    return [
        (t.path, t.label, catalog.rejected.get(t.track_id, ("", ""))[0]) for t in catalog.tracks
    ]
