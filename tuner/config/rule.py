"""What the checks of several settings share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.errors import SpecError
from tuner.config.specs import clip_spec, feature_spec

if TYPE_CHECKING:
    from pipelines.settings import ClipSpec, FeatureSpec
    from tuner.config.schema import Experiment

KIND = ("features.kind", "model.name")
"""Settings that decide the kind of features."""


def specs_of(e: Experiment) -> tuple[ClipSpec, FeatureSpec] | None:
    """Return the pipeline's specs, or None if they are invalid, which other rules report."""
    try:
        return clip_spec(e.data), feature_spec(e.front_end)
    except SpecError:
        return None
