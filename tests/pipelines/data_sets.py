"""Data sets on disk for tests: empty files, manifests, verdicts on rows, one feature set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.build.building import build_sets
from pipelines.build.options import BuildOptions, BuildResult
from pipelines.features import FeatureSpec
from pipelines.settings import ClipSpec, SplitSpec, Tolerance
from pipelines.sources.tracks import Catalog
from pipelines.storage import Folder


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


def build(
    catalog: Catalog,
    out: Path | Folder,
    clip: ClipSpec,
    feature: FeatureSpec,
    split: SplitSpec,
    max_bad_share: float = 0.2,
    drop_lost_classes: bool = False,
    **options: Any,
) -> BuildResult:
    """Build one feature set."""
    tolerance = Tolerance(max_bad_share, drop_lost_classes)
    return build_sets(catalog, out, [(clip, feature)], split, BuildOptions(tolerance, **options))[
        0
    ]
