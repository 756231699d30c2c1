"""The blocks of a space file to the pipeline's specs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from pipelines.errors import SpecError
from pipelines.settings import PARAMETERS, ClipSpec, FeatureSpec, SplitSpec
from tuner.config.schema import ColumnSplit, ShareSplit

if TYPE_CHECKING:
    from tuner.config.schema import Data, Experiment, Features, Split


def clip_spec(data: Data) -> ClipSpec:
    """How clips are cut.

    Raises:
        pipelines.errors.SpecError: the settings cannot work.
    """
    return ClipSpec(data.clip_seconds, data.clips_per_track, data.hop_seconds, data.short)


def feature_spec(features: Features) -> FeatureSpec:
    """What a clip becomes.

    A setting that the kind does not read stays at its default, so that it tells no two feature
    sets apart.

    Args:
        features: with a kind; `Experiment.front_end` is.

    Raises:
        pipelines.errors.SpecError: the settings cannot work, or the kind is left to the model.
    """
    kind = features.kind
    if kind == "auto":
        raise SpecError("kind is auto; which it is, the model decides")
    read = {name: getattr(features, name) for name in PARAMETERS[kind]}
    return FeatureSpec(kind=kind, sample_rate=features.sample_rate, **read)


def split_spec(
    split: Split, group: str = "auto", seed: int = 0, leaks: Literal["report", "drop"] = "report"
) -> SplitSpec:
    """How tracks, or their clips, are put on sides, and what becomes of those on two.

    Raises:
        pipelines.errors.SpecError: the settings cannot work.
    """
    if isinstance(split, ColumnSplit):
        return SplitSpec(
            group=group, seed=seed, leaks=leaks, column=split.column,
            val_values=split.val, test_values=split.test,
        )  # fmt: skip
    shares = split if isinstance(split, ShareSplit) else ShareSplit(by=split)
    return SplitSpec(
        group=group, unit=shares.by, seed=seed, leaks=leaks,
        train=shares.train, val=shares.val, test=shares.test,
    )  # fmt: skip


def feature_set_key(experiment: Experiment) -> tuple[ClipSpec, FeatureSpec]:
    """Return the settings that tell the feature sets of one study apart.

    Raises:
        pipelines.errors.SpecError: The settings cannot work.
    """
    return clip_spec(experiment.data), feature_spec(experiment.stored_features)


def effective_settings(experiment: Experiment) -> dict[str, Any]:
    """Return the settings that change what a trial learns; trials that agree in them are the same.

    A model that fits at once sees the features and whether classes are balanced, and nothing of
    the optimizer, the augmentation and the rest of training.
    """
    if not experiment.model.fits_at_once:
        return experiment.model_dump(mode="json", exclude={"resources"})
    return {
        "model": experiment.model.model_dump(mode="json"),
        "features": asdict(feature_spec(experiment.front_end)),
        "balance": experiment.train.balance != "none",
    }
