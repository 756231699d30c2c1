"""How alike two spaces are: the share of their ranges that overlaps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import mean
from typing import TYPE_CHECKING

from tuner.config import loads
from tuner.config.ranges import Numbers, Options

if TYPE_CHECKING:
    from tuner.config import Space
    from tuner.config.ranges import Range

# Blocks whose settings change what a trial learns.
LEARNED = ("features", "model", "optim", "augment", "train")


def space_of(settings: Mapping[str, str]) -> Space:
    """Return the space that a study has recorded as text by setting."""
    blocks: dict[str, list[str]] = {}
    for name, text in settings.items():
        block, _, key = name.partition(".")
        blocks.setdefault(block, []).append(f"{key}: {text}" if key else text)
    parts = (
        f"{block}: {{{', '.join(found)}}}" if f"{block}.{found[0].partition(':')[0]}" in settings
        else f"{block}: {found[0]}"
        for block, found in blocks.items()
    )  # fmt: skip
    return loads("\n".join(parts))


def alike(one: Space, other: Space) -> float:
    """Return the mean overlap of the settings that are a range in either space, or differ.

    The overlap of two ranges is what they share as a part of what they cover together: in their
    lengths (of logarithms where both are logarithmic), or in their numbers of values. A setting
    that is fixed in one space is a range of that value; one that a space does not have shares
    nothing.

    Args:
        one: A space.
        other: Another one.

    Returns:
        From 0 to 1, which equal spaces have.
    """
    ranges = one.ranges, other.ranges
    names = [name for name in {**ranges[0], **ranges[1]} if name.partition(".")[0] in LEARNED]
    found = [_overlap(*(known.get(name) for known in ranges)) for name in names]
    fixed = [space.settings() for space in (one, other)]
    for name in {**fixed[0], **fixed[1]}:
        is_range = any(name == known or known.startswith(f"{name}.") for known in names)
        if name.partition(".")[0] in LEARNED and not is_range:
            texts = [settings.get(name) for settings in fixed]
            if texts[0] != texts[1]:
                found.append(0.0)
    return mean(found) if found else 1.0


def _overlap(one: Range | None, other: Range | None) -> float:
    if one is None or other is None:
        return 0.0
    if isinstance(one, Numbers) and isinstance(other, Numbers):
        scale = math.log if one.log and other.log else float
        low, high = scale(max(one.low, other.low)), scale(min(one.high, other.high))
        whole = scale(max(one.high, other.high)) - scale(min(one.low, other.low))
        return max(0.0, high - low) / whole
    if isinstance(one, Options) and isinstance(other, Options):
        options = [set(map(repr, known.arguments)) for known in (one, other)]
        return len(options[0] & options[1]) / len(options[0] | options[1])
    return 0.0
