"""Checks a tree against the experiment, for the values that its ranges can take."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tuner.config.messages import describe, unknown_key
from tuner.config.range_kinds import Choice, Grid, count_values, discrete_values, ends_of
from tuner.config.rules import ADVICE, RULES
from tuner.config.schema import Experiment, block_at
from tuner.config.tree import (
    Origin,
    draw,
    every_draw,
    first_value,
    open_settings,
    with_choices,
)
from tuner.config.yaml_nodes import MAX_PROBLEMS, Mark
from tuner.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipelines.settings.block import Rule
    from tuner.config.range_kinds import Range, Scalar
    from tuner.config.tree import Block, Draw, Open, Path
    from tuner.errors import Problem

MAX_DRAWS_PER_RULE = 512
MAX_VALUES_TRIED = 32  # of a range of whole numbers; a longer one is tried at its ends
_Loc = tuple["str | int", ...]


@dataclass(slots=True)
class Findings:
    """Problems and warnings, each reported once."""

    problems: dict[tuple[Mark, str], Problem] = field(default_factory=dict)
    warnings: dict[tuple[Mark, str], Problem] = field(default_factory=dict)


def check(tree: Block) -> Findings:
    """Find everything that is wrong with a tree.

    Each setting is tried alone with every option, bound and (for short ranges of whole numbers)
    value; each rule is tried with all combinations of the settings that it involves.
    """
    findings = Findings()
    _check_settings(tree, findings)
    if len(findings.problems) > MAX_PROBLEMS:
        return findings
    for rule in RULES:
        for drawn, message in _faults(tree, rule):
            mark, path = _place(rule, drawn)
            # One report per rule and place, not one per combination.
            key = (mark, rule.check.__name__)
            findings.problems.setdefault(key, mark.problem(path, message))
    for rule in ADVICE:
        _advise(tree, rule, findings)
    return findings


def to_experiment(drawn: Draw) -> Experiment:
    """Make the experiment of one draw from a tree that has been checked.

    Raises:
        ConfigError: This combination of values is impossible although its ends are not.
    """
    experiment = Experiment.model_validate(drawn.values)
    problems = []
    for rule in RULES:
        message = rule.check(experiment)
        if message:
            mark, path = _place(rule, drawn)
            problems.append(mark.problem(path, message))
    if problems:
        raise ConfigError(problems)
    return experiment


def _check_settings(tree: Block, findings: Findings) -> None:
    for chosen in _one_at_a_time(tree):
        drawn = draw(tree, with_choices(chosen))
        try:
            Experiment.model_validate(drawn.values)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                _collect(item, drawn, findings)
        if len(findings.problems) > MAX_PROBLEMS:
            return


def _one_at_a_time(tree: Block) -> Iterator[Mapping[str, Scalar]]:
    yield {}
    for found in open_settings(tree):
        for value in values_to_try(found.setting.range):
            yield {**found.context, found.setting.name: value}


def values_to_try(range_: Range) -> Sequence[Scalar]:
    """Pick the values that stand for a range: all of a short one, else its ends."""
    if isinstance(range_, Choice | Grid):
        return range_.options
    num_values = count_values(range_)
    if num_values is None or num_values > MAX_VALUES_TRIED:
        return ends_of(range_)
    return (*ends_of(range_), *discrete_values(range_)[1:-1])  # a fault shows at an end first


def _collect(error: Mapping[str, Any], drawn: Draw, findings: Findings) -> None:
    path = _path_in(drawn.values, error)
    origin = _origin(path, drawn)
    if not origin.valid or len(findings.problems) > MAX_PROBLEMS:
        return
    if error["type"] == "extra_forbidden":
        place, shown = origin.key_mark, origin.path
        key = (place, "unknown")
        if key not in findings.problems:
            keys = tuple(str(piece) for piece in path)
            message = unknown_key(keys, _value_at(drawn.values, path[:-1]))
            findings.problems[key] = place.problem(shown, message)
        return
    place, shown = origin.mark, origin.path
    # A range of numbers has one fault of a kind, however many of its values show it.
    alike = origin.kind not in (None, "choice", "grid")
    key = (origin.key_mark if alike else place, f"{error['type']} {path[-1:]}")
    if key in findings.problems:
        return
    if error["type"] == "missing":
        shown = f"{shown}.{path[-1]}" if shown else str(path[-1])
    findings.problems[key] = place.problem(shown, describe(error, path, origin.kind))


def _path_in(values: Any, error: Mapping[str, Any]) -> _Loc:
    """Drop the union tags from pydantic's location: pieces that are no key where they stand."""
    path: list[str | int] = []
    for piece in error["loc"]:
        keys = range(len(values)) if isinstance(values, list) else values
        if isinstance(keys, range | dict) and piece in keys:
            values = values[piece]
        elif error["type"] != "missing" or piece != error["loc"][-1]:
            continue
        path.append(piece)
    if error["type"] == "union_tag_invalid" and isinstance(values, dict):
        path.append("name")  # the tag is what is wrong, not the block
    return tuple(path)


def _origin(path: _Loc, drawn: Draw) -> Origin:
    while path not in drawn.origins and path:
        path = path[:-1]
    return drawn.origins[path]


def _value_at(values: Any, path: _Loc) -> Any:
    for piece in path:
        values = values[piece]
    return values


def _faults(tree: Block, rule: Rule) -> Iterator[tuple[Draw, str]]:
    for drawn in _draws_for(tree, rule):
        experiment, broken = _repaired(drawn)
        if experiment is None or any(_touches(path, rule) for path in broken):
            continue
        message = rule.check(experiment)
        if message:
            yield drawn, message


def _draws_for(tree: Block, rule: Rule) -> Iterator[Draw]:
    def thorough(setting: Open, path: Path) -> Sequence[Scalar]:
        return values_to_try(setting.range) if _touches(path, rule) else (first_value(setting),)

    def quick(setting: Open, path: Path) -> Sequence[Scalar]:
        return thorough(setting, path)[: None if setting.branches else 2]

    drawn = list(islice(every_draw(tree, thorough), MAX_DRAWS_PER_RULE + 1))
    if len(drawn) <= MAX_DRAWS_PER_RULE:
        return iter(drawn)
    return islice(every_draw(tree, quick), MAX_DRAWS_PER_RULE)


def _touches(path: Sequence[str | int], rule: Rule) -> bool:
    """Tell whether a setting, or a block that holds it, takes part in a rule."""
    for dotted in rule.paths:
        pieces = dotted.split(".")
        shorter = min(len(pieces), len(path))
        if list(path[:shorter]) == pieces[:shorter]:
            return True
    return False


def _repaired(drawn: Draw) -> tuple[Experiment | None, list[_Loc]]:
    """Make an experiment from what is sound, so that rules on sound settings still speak.

    Returns:
        The experiment, None when nothing can be made; and the paths that were left out.
    """
    values = drawn.values
    broken: list[_Loc] = []
    for _ in range(3):  # a setting that is left out can bring a second fault to light
        try:
            return Experiment.model_validate(values), broken
        except ValidationError as error:
            paths = [_path_in(values, item) for item in error.errors(include_url=False)]
            broken.extend(paths)
            values = copy.deepcopy(values)
            for path in sorted(paths, key=len, reverse=True):
                _leave_out(values, path)
            values.setdefault("name", "unnamed")
            values.setdefault("model", {"name": "cnn"})
    return None, broken


def _leave_out(values: Any, path: _Loc) -> None:
    holder = _value_at(values, path[:-1]) if path else None
    if isinstance(holder, dict):
        holder.pop(path[-1], None)
    elif isinstance(holder, list) and path:
        holder.clear()


def _place(rule: Rule, drawn: Draw) -> tuple[Mark, str]:
    """The first setting of a rule that is a range; else the first written; else its block."""
    found = [drawn.origins.get(tuple(dotted.split("."))) for dotted in rule.paths]
    written = [origin for origin in found if origin]
    for origin in sorted(written, key=lambda origin: origin.kind is None):
        return origin.mark, origin.path
    first = tuple(rule.paths[0].split("."))
    return _origin(first, drawn).mark, rule.paths[0]


def _advise(tree: Block, rule: Rule, findings: Findings) -> None:
    """Warn where the first setting of a rule stands if the rule speaks whenever it is drawn."""
    path = tuple(rule.paths[0].split("."))
    advice: dict[Mark, Problem | None] = {}  # None: the setting has its use
    for drawn in _draws_for(tree, rule):
        origin = drawn.origins.get(path)
        if origin is None or _is_plain_default(path, origin, drawn):
            continue
        experiment, _ = _repaired(drawn)
        message = rule.check(experiment) if experiment else None
        found = origin.mark.problem(origin.path, message) if message else None
        if not found or origin.key_mark not in advice:
            advice[origin.key_mark] = found
    for problem in filter(None, advice.values()):
        mark = Mark(problem.file, problem.line, problem.column)
        findings.warnings.setdefault((mark, problem.path), problem)


def _is_plain_default(path: _Loc, origin: Origin, drawn: Draw) -> bool:
    """Whether a setting is a default that is written out, as resolved files have them."""
    block = block_at(tuple(map(str, path[:-1])), _value_at(drawn.values, path[:-1]))
    if origin.kind is not None or block is None:
        return False
    return bool(block.model_fields[str(path[-1])].default == _value_at(drawn.values, path))
