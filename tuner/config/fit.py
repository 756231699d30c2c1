"""Settings that cannot be good for the data at hand: rules between an experiment and facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pipelines.settings import Rule
from tuner.config.data import ShareSplit
from tuner.config.schema import KIND
from tuner.config.situation import MOST
from tuner.config.validate import first_faults
from tuner.config.yaml_text import write_rounded

if TYPE_CHECKING:
    from pipelines.facts import DataFacts
    from tuner.config.schema import Experiment
    from tuner.config.tree import Block
    from tuner.errors import Problem

LONGER_THAN_MOST = 1.25
"""A clip may be this much longer than nearly all tracks."""
VALIDATION_TRACKS_PER_CLASS = 3
MAX_SHOWN = 8


def unfit(tree: Block, facts: DataFacts) -> Iterator[Problem]:
    """Find settings that do not fit the data, each once."""
    for rule in FIT_RULES:
        yield from first_faults(tree, replace(rule, check=partial(rule.check, facts)))


def _clip(facts: DataFacts, e: Experiment) -> str | None:
    clip, most = e.data.clip_seconds, facts.length_seconds(MOST)
    if not facts.seconds or e.front_end.row.column == "track" or clip <= LONGER_THAN_MOST * most:
        return None
    shown = write_rounded(most, 2)
    return (
        f"clips of {clip:g} s are longer than most tracks: 19 of 20 last {shown} s or less; "
        f"write {shown} or auto"
    )


def _rate(facts: DataFacts, e: Experiment) -> str | None:
    rate, most = e.features.sample_rate, facts.rate_hz(0.5)
    is_read = e.front_end.sample_rate == rate and e.front_end.kind != "embedding"
    if not (facts.rates_hz and is_read) or rate <= most:
        return None
    return (
        f"{rate:,} Hz is above the rate of most files, {most:,} Hz, and nothing is above "
        f"{most / 2:,.0f} Hz in them; write {most} or auto"
    )


def _unreadable(facts: DataFacts, e: Experiment) -> str | None:
    bad, looked_at, share = len(facts.unreadable), facts.num_looked_at, e.data.max_bad_share
    if bad <= share * looked_at:
        return None
    return (
        f"{bad} of {looked_at} files looked at cannot be read, for example "
        f"{facts.unreadable[0]}; more than the share {share:g} that may be bad"
    )


def _num_val(facts: DataFacts, e: Experiment) -> str | None:
    number = _validation_tracks(facts, e)
    return None if number is None else few_to_validate(number, len(facts.num_by_class))


def few_to_validate(number: int, num_classes: int) -> str | None:
    """Say what so few validation tracks mean for the search; None if they are enough."""
    if number >= (least := VALIDATION_TRACKS_PER_CLASS * num_classes):
        return None
    return (
        f"only about {number} validation tracks for {num_classes} classes; with fewer "
        f"than {least} the choice among trials is mostly luck"
    )


def _validation_tracks(facts: DataFacts, e: Experiment) -> int | None:
    split = e.data.split
    if e.data.num_folds:
        return round((1 - e.data.split_spec.test) * len(facts.tracks))
    spec = e.data.split_spec
    if facts.given:
        spec = facts.given.instead_of(spec)
    if spec.column is not None:
        from pipelines.splits.assign import given_splits

        return Counter(given_splits(facts.tracks, spec).values())["val"]
    if isinstance(split, ShareSplit) and split.by == "group":
        return round(split.val * len(facts.tracks))
    return None


def _rare(facts: DataFacts, e: Experiment) -> str | None:
    folds = e.data.num_folds
    groups = facts.groups_by_class(e.data.group) if folds else {}
    few = [f"{label!r} ({number})" for label, number in groups.items() if number <= folds]
    if not few:
        return None
    return (
        f"{', '.join(few[:MAX_SHOWN])}: too few groups for a test and {folds} folds, so that some "
        "folds lack the class; write fewer folds"
    )


FIT_RULES: tuple[Rule, ...] = (
    Rule(("data.max_bad_share",), _unreadable),
    Rule(("data.clip_seconds", *KIND), _clip),
    Rule(("features.sample_rate", *KIND), _rate),
    Rule(("data.split",), _num_val),
    Rule(("data.split", "data.group"), _rare),
)
"""Rules whose checks take the facts and the experiment, and cause a warning."""
