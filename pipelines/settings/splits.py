"""What may not be on two sides of a split, and how large the sides are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipelines.settings.refuse import refuse

if TYPE_CHECKING:
    from collections.abc import Iterator


TAGS = ("artist", "album")

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class SplitSpec:
    """What may not be on two sides, and how large the sides are.

    Attributes:
        group: `auto` (the column `group`, else `artist`, else the artist in the files' tags, else
            the track; near-duplicates joined), `track`, `tag:artist` or `tag:album`, `path:` and
            a regular expression whose first group is the name, or the name of a manifest column.
        unit: what is put on a side: a whole `group`, or each `clip` for itself. The latter lets
            a model recognise recordings; it is there to show what that is worth, and marks the
            feature set as leaky.
        train: share of the tracks of each class for training.
        val: share for validation.
        test: share for the one test at the end.
        column: a manifest column that gives the side instead of shares. A cell that is empty or
            says unused, excluded or none puts the track on no side.
        val_values: values of `column` that mean validation.
        test_values: values of `column` that mean test; all others are training. With both
            empty the column holds the words train, val and test.
        seed: another seed, another split.
        leaks: what becomes of groups and copies on two sides, which a split that is given may
            have: `report` uses them and lets the audit fail; `drop` uses only those on the side
            that matters most, test before val before train.
    """

    group: str = "auto"
    unit: Literal["group", "clip"] = "group"
    train: float = 0.70
    val: float = 0.15
    test: float = 0.15
    column: str | None = None
    val_values: tuple[str, ...] = ()
    test_values: tuple[str, ...] = ()
    seed: int = 0
    leaks: Literal["report", "drop"] = "report"

    def __post_init__(self) -> None:
        refuse(_split_problems(self))


def split_key(split: SplitSpec) -> dict[str, Any]:
    """All that changes the sides, with defaults written out: for fingerprints."""
    key: dict[str, Any] = {"group": split.group, "unit": split.unit}
    if split.leaks == "drop":  # left out otherwise: sets without it keep the names they had
        key["leaks"] = "drop"
    if split.column is None:
        shares = [round(share, 9) for share in (split.train, split.val, split.test)]
        return key | {"shares": shares, "seed": int(split.seed)}
    values = {"val": sorted(split.val_values), "test": sorted(split.test_values)}
    return key | {"column": split.column, "values": values}


def _split_problems(split: SplitSpec) -> Iterator[str]:
    shares = (split.train, split.val, split.test)
    if any(not (0 < share < 1) for share in shares):
        yield f"train, val and test must each be above 0 and below 1, not {shares}"
    elif abs(sum(shares) - 1) > 1e-6:
        yield f"train, val and test must add up to 1, not {sum(shares):g}"
    yield from _group_problems(split.group)
    if split.unit not in ("group", "clip"):
        yield f"unit must be group or clip, not {split.unit!r}"
    elif split.unit == "clip" and split.column is not None:
        yield f"clips cannot be split one by one and by the column {split.column!r} at once"
    yield from _leak_problems(split)
    if split.column is None and (split.val_values or split.test_values):
        yield "val and test values are given, but not the column that holds them"
    if both := sorted(set(split.val_values) & set(split.test_values)):
        yield f"values {', '.join(both)} stand for both validation and test"


def _leak_problems(split: SplitSpec) -> Iterator[str]:
    if split.leaks not in ("report", "drop"):
        yield f"leaks must be report or drop, not {split.leaks!r}"
    elif split.leaks == "drop" and split.unit == "clip":
        yield (
            "leaks cannot be dropped when clips are split one by one, since every track is then "
            "on several sides; write leaks: report (--leaks report), or split by group"
        )


def _group_problems(group: str) -> Iterator[str]:
    kind, _, rule = group.partition(":")
    if not group:
        yield "group must be auto, track, tag:, path: or the name of a manifest column, not empty"
    elif kind == "tag" and rule not in TAGS:
        yield f"group: tags are {' and '.join(f'tag:{name}' for name in TAGS)}, not {group!r}"
    elif kind == "path":
        try:
            pattern = re.compile(rule)
        except re.error as error:
            yield f"group: {rule!r} is not a regular expression: {error}"
            return
        if pattern.groups < 1:
            yield f"group: {rule!r} has no (...) around the part of the path that names the group"
