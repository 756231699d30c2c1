"""Settings that pipelines and tuner share: their base class, rules between them, clips, splits."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.errors import SpecError

MAX_FAULTS = 5
"""Faults that one message lists."""


class Block(BaseModel):
    """Settings that are frozen, reject unknown keys and infinity, and convert nothing silently."""

    # A process that only receives settings, such as a decode worker, never builds a validator.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """A check that involves more than one setting.

    Attributes:
        paths: Dotted paths of the settings involved. A fault is reported at the first one that
            was written in the space file.
        check: Returns what is wrong and what to write instead, or None. Takes the whole
            experiment, or what the table that holds the rule says.
    """

    paths: tuple[str, ...]
    check: Callable[..., str | None]


def check(rules: Iterable[Rule], *settings: Block) -> None:
    """Check settings that did not come from a space file.

    Raises:
        SpecError: The settings break some of the rules; the message lists them all.
    """
    faults = [(rule.paths[0], fault) for rule in rules if (fault := rule.check(*settings))]
    if faults:
        raise SpecError("; ".join(f"{name}: {fault}" for name, fault in faults))


def in_words(error: Exception) -> str:
    """Describe an error of reading settings that did not come from a space file, on one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    found = error.errors(include_url=False)
    faults = [
        f"{'.'.join(map(str, one['loc']))}: {one['msg']}, got {reprlib.repr(one['input'])}"
        for one in found[:MAX_FAULTS]
    ]
    more = len(found) - len(faults)
    return "; ".join(faults) + (f"; and {more} more" if more else "")


class ClipSpec(Block):
    """Clip settings: length, number, and what fills a short track."""

    clip_seconds: float = Field(3.0, gt=0, le=600, description="Length of a clip, in seconds.")
    clips_per_track: int | None = Field(
        10,
        ge=1,
        le=10_000,
        description="Clips of a track, evenly spaced; not used with hop_seconds.",
    )
    hop_seconds: float | None = Field(
        None, ge=0.01, le=3600, description="Seconds between clips, instead of clips_per_track."
    )
    short: Literal["pad", "repeat"] = Field(
        "pad", description="Fill a track shorter than a clip with zeros, or repeat it."
    )

    def canonical(self) -> dict[str, Any]:
        """Return everything that changes the clips, with defaults written out."""
        by_hop = self.hop_seconds is not None
        return {
            "seconds": self.clip_seconds,
            "count": None if by_hop else self.clips_per_track,
            "hop_seconds": self.hop_seconds,
            "short": self.short,
        }


def _number_of_clips(clip: ClipSpec) -> str | None:
    if clip.hop_seconds is None and clip.clips_per_track is None:
        return "hop_seconds and clips_per_track are both null; set one of them"
    return None


CLIP_RULES = (Rule(("hop_seconds", "clips_per_track"), _number_of_clips),)
"""Checks of a ``ClipSpec``."""


@dataclass(frozen=True)
class Framing:
    """The frames of a short-time Fourier transform.

    Attributes:
        n_fft: Samples in one frame.
        win_length: Samples under the Hann window in the middle of the frame.
        hop_length: Samples between frames.
    """

    n_fft: int
    win_length: int
    hop_length: int

    def count(self, num_samples: int) -> int:
        """Return the number of frames of a signal: one is centred on every multiple of the hop.

        With an odd ``n_fft``, half of which is cut off on both sides, the last one may not fit.
        """
        reflected = num_samples + 2 * (self.n_fft // 2)
        return 1 + (reflected - self.n_fft) // self.hop_length


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
        "`tag:artist`, `tag:album`, `path:` and a regular expression, or a column, whose names "
        "are compared without case, blanks and guests (`exact:` and a column: letter by letter).",
    ),
]
Leaks = Annotated[
    Literal["report", "drop"],
    Field(
        description="Recordings and groups that leak between splits that the data names: "
        "report them and register no model, or drop all but those of the test split, then of "
        "the validation split."
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
        description="Manifest column that gives the split, instead of shares. Tracks whose cell "
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
    folds: int | None = Field(
        None,
        ge=2,
        le=20,
        description="Cross-validation: the tracks outside the test in so many folds by group, of "
        "which the set stores the first as the validation split.",
    )
    seed: int = Field(0, description="Seed of the split.")
    leaks: Leaks = "report"

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of train, val and test; with folds, train and val follow from the test."""
        if self.folds is None:
            return self.train, self.val, self.test
        val = (1 - self.test) / self.folds
        return 1 - self.test - val, val, self.test

    def canonical(self) -> dict[str, Any]:
        """Return everything that changes the split, with defaults written out."""
        key: dict[str, Any] = {"group": self.group, "unit": self.unit}
        if self.leaks == "drop":  # left out otherwise, so that older sets keep their fingerprints
            key["leaks"] = "drop"
        if self.folds is not None:  # likewise
            key["folds"] = self.folds
        if self.column is None:
            shares = [round(share, 9) for share in self.shares]
            return key | {"shares": shares, "seed": self.seed}
        values = {"val": sorted(self.val_values), "test": sorted(self.test_values)}
        if self.folds is not None:
            key["seed"] = self.seed
        return key | {"column": self.column, "values": values}


def _shares(split: SplitSpec) -> str | None:
    total = sum(split.shares)  # with folds always 1
    return (
        None if abs(total - 1) <= 1e-6 else f"train, val and test must add up to 1, got {total:g}"
    )


def _unit(split: SplitSpec) -> str | None:
    if split.unit == "clip" and split.folds is not None:
        return "folds are made of whole groups; write by: group, or leave out folds"
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


@dataclass(frozen=True)
class Tolerance:
    """The amount of data that a build may lose before it stops.

    Attributes:
        max_bad_share: Largest share of bad files among the listed ones.
        drop_lost_classes: True to continue without a class that lost all of its files.
    """

    max_bad_share: float = 0.2
    drop_lost_classes: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad_share <= 1:
            raise SpecError(
                f"max_bad_share must be from 0 to 1, got {self.max_bad_share:g}; 5 % is 0.05"
            )
