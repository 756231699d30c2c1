"""Which feature sets the trials of a space need, and building each of them once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.settings import ClipSpec, FeatureSpec, SplitSpec, problems
from pipelines.sources.files import is_uri
from tuner.config.specs import clip_spec, feature_spec, split_spec
from tuner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.build.feature_sets import BuildResult
    from pipelines.build.progress import Progress
    from tuner.config import Experiment, Space
    from tuner.config.schema import Data, Features

Specs = tuple[ClipSpec, FeatureSpec]
DEMO_ROOT = "demo"


def specs_of(data: Data, features: Features) -> tuple[ClipSpec, FeatureSpec, SplitSpec]:
    """The pipeline's specs for an experiment's data and features blocks."""
    split = split_spec(data.split, data.group, data.seed, data.leaks)
    return clip_spec(data), feature_spec(features), split


def key_of(experiment: Experiment) -> Specs:
    """What tells the feature sets of one study apart."""
    return specs_of(experiment.data, experiment.stored_features)[:2]


def data_source(root: str, storage: Path) -> str | Path:
    """Where the audio is.

    Returns:
        The given folder or manifest, the URI of one as it was given, or the built-in demo under
        the storage.
    """
    if root == DEMO_ROOT:
        return storage / "demo-data"
    return root if is_uri(root) else Path(root).expanduser()


def ensure_demo(folder: Path, progress: Callable[[str], None]) -> None:
    """Write the demo dataset unless it is there; ``progress`` gets a line now and then."""
    from pipelines.demo import write_demo

    write_demo(
        folder, progress=lambda done, total: progress(f"demo dataset: {done} of {total} tracks")
    )


def check_source(space: Space, source: str | Path) -> None:
    """Find out in a moment, before anything is started, whether the data can be used.

    Raises:
        PipelineError: there is nothing, one class, too few groups, or a faulty manifest.
    """
    from pipelines.sources.catalog import read_catalog
    from pipelines.splits.decide import check_splits

    check_splits(read_catalog(source), specs_of(space.template.data, space.template.front_end)[2])


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
    space: Space, source: str | Path, folder: Path, progress: Callable[[Progress], None]
) -> dict[Specs, BuildResult]:
    """Build what is missing of the space's feature sets under ``folder``.

    Raises:
        PipelineError: the data cannot be used, or the disk is full.
    """
    from pipelines.build.feature_sets import build_sets
    from pipelines.sources.catalog import read_catalog

    # Neither the split nor the share of bad files can be a range, so all sets have the same.
    data = space.template.data
    specs = [specs_of(variant.data, variant.features) for variant in space.feature_variants()]
    wanted = [(clip, feature) for clip, feature, _ in specs]
    built = build_sets(
        read_catalog(source), folder, wanted, specs[0][2], progress,
        max_bad_share=data.max_bad_share,
    )  # fmt: skip
    return dict(zip(wanted, built, strict=True))


def describe(result: BuildResult) -> dict[str, Any]:
    """A feature set in the words of the ledger."""
    manifest = result.feature_set.manifest
    return {
        "fingerprint": manifest.fingerprint,
        "path": str(result.feature_set.path),
        "labels": list(manifest.labels),
        "tracks": asdict(manifest.tracks),
        "clips": dict(manifest.clips),
        "groups": manifest.group_source,
        "leakage": asdict(manifest.leakage),
    }
