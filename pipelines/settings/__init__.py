"""Settings that pipelines and tuner share: their base class, clips and splits."""

from pipelines.settings.block import Block, Rule, check
from pipelines.settings.clips import CLIP_RULES, ClipSpec, Framing
from pipelines.settings.splits import (
    SPLIT_RULES,
    SPLITS,
    TAGS,
    Group,
    Leaks,
    Share,
    Split,
    SplitSpec,
)

__all__ = [
    "CLIP_RULES",
    "SPLITS",
    "SPLIT_RULES",
    "TAGS",
    "Block",
    "ClipSpec",
    "Framing",
    "Group",
    "Leaks",
    "Rule",
    "Share",
    "Split",
    "SplitSpec",
    "check",
]
