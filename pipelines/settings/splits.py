"""Split settings: how tracks are grouped, and the size of each split."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from pipelines.settings.block import Block, Rule

TAGS = ("artist", "album")

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

Share = Annotated[float, Field(gt=0, lt=1)]
"""A share of the tracks of each class."""

Group = Annotated[
    str,
    Field(
        min_length=1,
        description="What must stay within one split: `auto` (the column `group`, else `artist`, "
        "else the artist in the tags, else the track; near-duplicates joined), `track`, "
        "`tag:artist`, `tag:album`, `path:` and a regular expression, or a column.",
    ),
]
Leaks = Annotated[
    Literal["report", "drop"],
    Field(
        description="Recordings and groups that appear in more than one split of a given split: "
        "report them and register no model, or drop all but those of the test split, then of "
        "the validation split.",
    ),
]


class SplitSpec(Block):
    """Split settings of a feature set."""

    group: Group = "auto"
    unit: Literal["group", "clip"] = Field(
        "group", description="Assign whole groups, or single clips: leaky, for comparison only."
    )
    train: Share = Field(0.70, description="Share of the training split.")
    val: Share = Field(0.15, description="Share of the validation split.")
    test: Share = Field(0.15, description="Share of the test split.")
    column: str | None = Field(
        None,
        description="Manifest column that gives the split, in place of shares. Tracks whose cell "
        "is empty or says unused, excluded or none are left out.",
    )
    val_values: tuple[str, ...] = Field(
        (), strict=False, description="Values of the column for validation."
    )
    test_values: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Values for the test; without both, the column holds train, val and test.",
    )
    seed: int = Field(0, description="Seed of the split.")
    leaks: Leaks = "report"

    def canonical(self) -> dict[str, Any]:
        """Return everything that changes the split, with defaults written out."""
        key: dict[str, Any] = {"group": self.group, "unit": self.unit}
        if self.leaks == "drop":  # left out otherwise, so that older sets keep their fingerprints
            key["leaks"] = "drop"
        if self.column is None:
            shares = [round(share, 9) for share in (self.train, self.val, self.test)]
            return key | {"shares": shares, "seed": self.seed}
        values = {"val": sorted(self.val_values), "test": sorted(self.test_values)}
        return key | {"column": self.column, "values": values}


def _shares(split: SplitSpec) -> str | None:
    total = split.train + split.val + split.test
    return (
        None if abs(total - 1) <= 1e-6 else f"train, val and test must add up to 1, got {total:g}"
    )


def _unit(split: SplitSpec) -> str | None:
    if split.unit == "clip" and split.column is not None:
        return f"clips cannot be split one by one and by the column {split.column!r} at once"
    if split.unit == "clip" and split.leaks == "drop":
        return (
            "leaks cannot be dropped when clips are split one by one, because every track is then "
            "in several splits; write leaks: report (--leaks report), or split by group"
        )
    return None


def _values(split: SplitSpec) -> str | None:
    if split.column is None and (split.val_values or split.test_values):
        return "val and test values need the column that holds them"
    if both := sorted(set(split.val_values) & set(split.test_values)):
        return f"values {', '.join(both)} mean both validation and test"
    return None


def _group(split: SplitSpec) -> str | None:
    kind, _, rule = split.group.partition(":")
    if kind == "tag" and rule not in TAGS:
        return f"tags are {' and '.join(f'tag:{name}' for name in TAGS)}, got {split.group!r}"
    if kind == "path":
        try:
            pattern = re.compile(rule)
        except re.error as error:
            return f"{rule!r} is not a regular expression: {error}"
        if pattern.groups < 1:
            return f"{rule!r} has no (...) around the part of the path that names the group"
    return None


SPLIT_RULES = (
    Rule(("group",), _group),
    Rule(("split",), _shares),
    Rule(("split", "leaks"), _unit),
    Rule(("split",), _values),
)
"""Checks of a ``SplitSpec``, with the names that settings have in a space file."""
