"""A check that needs more than one setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pipelines.errors import SpecError
from tuner.config.specs import clip_spec, feature_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.settings import ClipSpec, FeatureSpec
    from tuner.config.schema import Experiment

Check: TypeAlias = "Callable[[Experiment], str | None]"


KIND = ("features.kind", "model.name")
"""What decides on the kind of features."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A relation between settings.

    Attributes:
        paths: The settings involved; a fault is reported at the first one that was written.
        check: Returns what is wrong and what was meant, or None.
    """

    paths: tuple[str, ...]
    check: Check


def specs_of(e: Experiment) -> tuple[ClipSpec, FeatureSpec] | None:
    """The pipeline's specs; None when they cannot be, which other rules report."""
    try:
        return clip_spec(e.data), feature_spec(e.front_end)
    except SpecError:
        return None
