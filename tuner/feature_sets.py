"""Which feature sets the trials of a space need, and building each of them once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.spec import ClipSpec, FeatureSpec, SplitSpec, problems
from tuner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.build import BuildResult
    from tuner.config import Experiment, Space
    from tuner.config.schema import Data, Features

Specs = tuple[ClipSpec, FeatureSpec]
DEMO_ROOT = "demo"


def specs_of(data: Data, features: Features) -> tuple[ClipSpec, FeatureSpec, SplitSpec]:
    """The pipeline's specs for an experiment's data and features blocks."""
    clip = ClipSpec(data.clip_seconds, data.clips_per_track, data.hop_seconds, data.short)
    feature = FeatureSpec(**features.model_dump())
    split = data.split.model_dump()
    if "column" in split:
        sides = SplitSpec(
            group=data.group, column=split["column"], seed=data.seed,
            val_values=tuple(split["val"]), test_values=tuple(split["test"]),
        )  # fmt: skip
    else:
        sides = SplitSpec(group=data.group, seed=data.seed, **split)
    return clip, feature, sides


def key_of(experiment: Experiment) -> Specs:
    """What tells the feature sets of one study apart."""
    return specs_of(experiment.data, experiment.features)[:2]


def data_source(root: str, storage: Path) -> Path:
    """Where the audio is: the given folder or manifest, or the built-in demo under the storage."""
    return storage / "demo-data" if root == DEMO_ROOT else Path(root).expanduser()


def ensure_demo(folder: Path, progress: Callable[[str], None]) -> None:
    """Write the demo dataset unless it is there; ``progress`` gets a line now and then."""
    from pipelines.demo import write_demo

    write_demo(
        folder, progress=lambda done, total: progress(f"demo dataset: {done} of {total} tracks")
    )


def check_source(space: Space, source: Path) -> None:
    """Find out in a moment, before anything is started, whether the data can be used.

    Raises:
        PipelineError: there is nothing, one class, too few groups, or a faulty manifest.
    """
    from pipelines.catalog import read_catalog
    from pipelines.groups import assign_groups, count_groups, require_groups
    from pipelines.splits import TrackInfo, assign_splits

    tracks = read_catalog(source).tracks
    split = specs_of(space.template.data, space.template.features)[2]
    groups = assign_groups(tracks, split)
    if split.column is None:
        require_groups(count_groups(tracks, groups))
    assign_splits(
        [TrackInfo(t.track_id, t.label, groups[t.track_id], t.columns) for t in tracks], split
    )


def check_specs(space: Space) -> None:
    """Make sure that the pipeline takes every front end of the space.

    Raises:
        UsageError: one of them cannot work; says why.
    """
    for variant in space.feature_variants():
        clip, feature, _ = specs_of(variant.data, variant.features)
        for name, text in problems(clip, feature):
            raise UsageError(f"{space.file}: {name}: {text}")


def build_all(
    space: Space, source: Path, folder: Path, progress: Callable[[int, int, int], None]
) -> dict[Specs, BuildResult]:
    """Build what is missing of the space's feature sets under ``folder``.

    Raises:
        PipelineError: the data cannot be used, or the disk is full.
    """
    from pipelines.build import build
    from pipelines.catalog import read_catalog

    catalog = read_catalog(source)
    built: dict[Specs, BuildResult] = {}
    for variant in space.feature_variants():
        clip, feature, split = specs_of(variant.data, variant.features)
        built[clip, feature] = build(
            catalog, folder, clip, feature, split, progress,
            max_bad_share=variant.data.max_bad_share,
        )  # fmt: skip
    return built


def describe(result: BuildResult) -> dict[str, Any]:
    """A feature set in the words of the ledger."""
    manifest = result.feature_set.manifest
    return {
        "fingerprint": manifest.fingerprint,
        "path": str(result.feature_set.path),
        "labels": list(manifest.labels),
        "tracks": asdict(manifest.tracks),
        "clips": dict(manifest.clips),
        "leakage": asdict(manifest.leakage),
    }
