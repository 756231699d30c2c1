"""What a value is chosen for: facts about the data, missing weights, the document so far."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from tuner.config.look_up import node_at, nodes_below, number_at, value_at
from tuner.config.searching import DURATION, SECONDS_PER_UNIT
from tuner.models.resources import MAX_WORKERS

if TYPE_CHECKING:
    from pipelines.facts import DataFacts

SHORT_SECONDS: Final = 2.0
MOST: Final = 0.95
"""Share of the tracks whose length a clip should cover, if they are short."""
TRAIN_SHARE: Final = 0.7
DEFAULT_BUDGET_SECONDS: Final = 600.0

Chosen = tuple[str, str]
"""A value, as YAML on one line, and the reason for it."""


@dataclass(frozen=True)
class Situation:
    """What a value is chosen for.

    Attributes:
        facts: Facts about the data.
        missing: Pretrained networks that cannot be had, each with the reason.
        document: The space file, with what was chosen so far.
        has_bf16: True if this machine multiplies bfloat16 in hardware.
    """

    facts: DataFacts
    missing: Mapping[str, str]
    document: yaml.MappingNode
    has_bf16: bool = False

    def number(self, setting: str) -> Any:
        """Return a setting that is a number; its default if it is not written."""
        return number_at(self.document, setting)

    @property
    def is_short(self) -> bool:
        """True if clips are words or single sounds, which need finer frames."""
        return bool(self.number("data.clip_seconds") < SHORT_SECONDS)

    @property
    def speed_factor(self) -> float:
        """How much faster a trial learns than on a core in float32; rough measurements."""
        if any(number_at(one, "resources.gpus_per_worker") for one in self._with_resources):
            return 30.0
        return 3.0 if self.has_bf16 else 1.0

    @property
    def worker_counts(self) -> list[int]:
        """Most workers of a trial, for each place where the document has resources."""
        found = []
        for one in self._with_resources:
            elastic = node_at(one, "resources.elastic")
            ends = elastic.value if isinstance(elastic, yaml.SequenceNode) else []
            counts: list[Any] = [int(end.value) for end in ends if str(end.value).isdecimal()]
            counts += [number_at(one, "resources.workers")]
            # Others are refused later, in words.
            known = (n for n in counts if isinstance(n, int) and n <= MAX_WORKERS)
            found.append(max(known, default=1))
        return found

    @property
    def _with_resources(self) -> list[yaml.Node]:
        """The document, and the alternatives of the model that have resources of their own."""
        below = nodes_below(node_at(self.document, "model"))
        return [self.document, *(one for one in below if node_at(one, "resources"))]

    @property
    def budget_seconds(self) -> float:
        """Time limit of the search, ten minutes if there is none."""
        budget = str(value_at(self.document, "search.budget"))
        if not re.fullmatch(DURATION, budget):
            return DEFAULT_BUDGET_SECONDS
        return float(budget[:-1]) * SECONDS_PER_UNIT[budget[-1]]

    @property
    def num_clips(self) -> int:
        """Number of clips of all tracks, about."""
        clip, hop = self.number("data.clip_seconds"), self.number("data.hop_seconds")
        beyond = self.facts.length_seconds(0.5) - clip
        each = 1 + max(0, int(beyond / hop)) if hop else self.number("data.clips_per_track")
        return int(each * len(self.facts.tracks))

    @property
    def num_folds(self) -> int:
        """Number of folds that a trial is trained on; 0 without cross-validation."""
        folds = value_at(self.document, "data.split.folds")
        return folds if isinstance(folds, int) else 0

    @property
    def seen_seconds(self) -> float:
        """Seconds of sound that an epoch trains on, over all folds."""
        crop = self.number("train.crop_seconds") or self.number("data.clip_seconds")
        return max(1.0, float(TRAIN_SHARE * self.num_clips * crop * (self.num_folds or 1)))
