"""Validation of a tree as an experiment, for the values that its ranges can take."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from tuner.config.messages import describe, unknown_key
from tuner.config.ranges import Options
from tuner.config.rules import ADVICE, RULES
from tuner.config.schema import Experiment, block_at
from tuner.config.tree import (
    Block,
    Leaf,
    Origin,
    count_draws,
    draw,
    every_draw,
    first_value,
    open_settings,
    with_choices,
)
from tuner.config.yaml_text import Mark
from tuner.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipelines.settings.block import Rule
    from tuner.config.ranges import Range
    from tuner.config.tree import Draw, Open
    from tuner.config.yaml_text import Scalar

MAX_PROBLEMS: Final = 100
MAX_GRID = 10_000
MAX_FEATURE_SETS = 32
MAX_DRAWS_PER_RULE = 512
MAX_VALUES_TRIED = 32  # of a range of integers; a longer one is tried at its ends
_Loc = tuple["str | int", ...]


@dataclass(slots=True)
class Findings:
    """Problems and warnings, by place and what makes two of them the same there."""

    problems: dict[tuple[Mark, object], Problem] = field(default_factory=dict)
    warnings: dict[tuple[Mark, object], Problem] = field(default_factory=dict)


def check(tree: Block) -> Findings:
    """Find everything that is wrong with a tree.

    Each setting is tried alone with every option, bound and (for short ranges of integers) value;
    each rule is tried with all combinations of the settings that it involves.
    """
    findings = Findings()
    _check_sizes(tree, findings)
    _check_settings(tree, findings)
    if len(findings.problems) > MAX_PROBLEMS:
        return findings
    for rule in RULES:
        for drawn in _draws_for(tree, rule):
            experiment, broken = _repaired(drawn)
            if experiment is None or any(_touches(path, rule) for path in broken):
                continue
            if message := rule.check(experiment):
                mark, path = _place(rule, drawn)
                # One report per rule and place, not one per combination.
                findings.problems.setdefault((mark, rule), mark.problem(path, message))
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
        if message := rule.check(experiment):
            mark, path = _place(rule, drawn)
            problems.append(mark.problem(path, message))
    if problems:
        raise ConfigError(problems)
    return experiment


def _check_sizes(tree: Block, findings: Findings) -> None:
    """Count the combinations of ranges where all of them would be built or visited."""
    shaping = {key: tree.entries[key] for key in ("data", "features") if key in tree.entries}
    features = Block(shaping, tree.mark, tree.key_marks)
    why = "each feature set is built as a whole; use choice, grid, integer or quantized"
    _refuse_continuous(features, why, findings)
    num_sets = count_draws(features)
    if num_sets is not None and num_sets > MAX_FEATURE_SETS:
        mark = next(open_settings(features))[0].mark
        message = (
            f"the ranges make {num_sets} feature sets; at most {MAX_FEATURE_SETS} are allowed"
        )
        findings.problems[mark, "sets"] = mark.problem("features", message)
    search = tree.entries.get("search")
    algorithm = search.entries.get("algorithm") if isinstance(search, Block) else None
    if not isinstance(algorithm, Leaf) or algorithm.value != "grid":
        return
    why = "the grid needs a list; use choice, grid or quantized"
    _refuse_continuous(tree, why, findings)
    num_points = count_draws(tree)
    if num_points is not None and num_points > MAX_GRID:
        message = f"the grid has {num_points:,} points; at most {MAX_GRID:,} are allowed"
        findings.problems[algorithm.mark, "grid"] = algorithm.mark.problem(
            "search.algorithm", message
        )


def _refuse_continuous(tree: Block, why: str, findings: Findings) -> None:
    for setting, _ in open_settings(tree):
        if setting.range.num_values is None:
            message = f"{setting.range.kind} is continuous, but {why}"
            findings.problems[setting.mark, why] = setting.mark.problem(setting.name, message)


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
    for setting, context in open_settings(tree):
        for value in _values_to_try(setting.range):
            yield {**context, setting.name: value}


def _values_to_try(range_: Range) -> Sequence[Scalar]:
    """Pick values that represent a range: all of a short one, else its ends."""
    if isinstance(range_, Options):
        return range_.options
    if range_.num_values is None or range_.num_values > MAX_VALUES_TRIED:
        return range_.ends
    return (*range_.ends, *range_.values()[1:-1])  # a fault shows at an end first


def _collect(error: Mapping[str, Any], drawn: Draw, findings: Findings) -> None:
    """Add one error of pydantic to the problems, unless it is there or its value was invalid."""
    if len(findings.problems) > MAX_PROBLEMS:
        return
    path = _path_in(drawn.values, error)
    origin = _origin(path, drawn)
    if not origin.valid:
        return
    fault, shown = error["type"], origin.path
    # A range of numbers has one fault of a kind, however many of its values show it.
    is_one_range = origin.kind not in (None, "choice", "grid")
    place = origin.key_mark if is_one_range or fault == "extra_forbidden" else origin.mark
    if (key := (place, f"{fault} {path[-1:]}")) in findings.problems:
        return
    if fault == "extra_forbidden":
        message = unknown_key(tuple(map(str, path)), _value_at(drawn.values, path[:-1]))
        findings.problems[key] = place.problem(shown, message)
        return
    if fault == "missing":
        shown = f"{shown}.{path[-1]}" if shown else str(path[-1])
    findings.problems[key] = origin.mark.problem(shown, describe(error, path, origin.kind))


def _path_in(values: Any, error: Mapping[str, Any]) -> _Loc:
    """Drop the union tags from pydantic's location: pieces that are no key at their place."""
    path: list[str | int] = []
    for piece in error["loc"]:
        keys = range(len(values)) if isinstance(values, list) else values
        if isinstance(keys, range | dict) and piece in keys:
            values = values[piece]
        elif error["type"] != "missing" or piece != error["loc"][-1]:
            continue
        path.append(piece)
    if error["type"] == "union_tag_invalid" and isinstance(values, dict):
        path.append("name")  # the tag is wrong, not the block
    return tuple(path)


def _origin(path: _Loc, drawn: Draw) -> Origin:
    """Locate a setting, or the innermost written block around it."""
    found = (drawn.locate(path[:size]) for size in range(len(path), -1, -1))
    return next(origin for origin in found if origin)


def _value_at(values: Any, path: _Loc) -> Any:
    for piece in path:
        values = values[piece]
    return values


def _draws_for(tree: Block, rule: Rule) -> Iterator[Draw]:
    """Draw all combinations of the settings that a rule involves, or a sample of too many."""

    def thorough(setting: Open) -> Sequence[Scalar]:
        involved = _touches(setting.path, rule)
        return _values_to_try(setting.range) if involved else (first_value(setting),)

    def quick(setting: Open) -> Sequence[Scalar]:
        return thorough(setting)[: None if setting.branches else 2]

    drawn = list(islice(every_draw(tree, thorough), MAX_DRAWS_PER_RULE + 1))
    if len(drawn) <= MAX_DRAWS_PER_RULE:
        return iter(drawn)
    return islice(every_draw(tree, quick), MAX_DRAWS_PER_RULE)


def _touches(path: Sequence[str | int], rule: Rule) -> bool:
    """Return True if a rule involves a setting, or a block that holds the setting."""
    for dotted in rule.paths:
        pieces = dotted.split(".")
        shorter = min(len(pieces), len(path))
        if list(path[:shorter]) == pieces[:shorter]:
            return True
    return False


def _repaired(drawn: Draw) -> tuple[Experiment | None, list[_Loc]]:
    """Make an experiment of the valid settings, so that rules about them can still be checked.

    Returns:
        The experiment, or None if none can be made; and the paths that were left out.
    """
    values = drawn.values
    broken: list[_Loc] = []
    for _ in range(3):  # leaving one setting out can reveal a second fault
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
    """Locate a fault: at the first range of a rule, else its first written setting, else block."""
    found = [drawn.locate(dotted.split(".")) for dotted in rule.paths]
    written = sorted(filter(None, found), key=lambda origin: origin.kind is None)
    if written:
        return written[0].mark, written[0].path
    return _origin(tuple(rule.paths[0].split(".")), drawn).mark, rule.paths[0]


def _advise(tree: Block, rule: Rule, findings: Findings) -> None:
    """Warn at the first setting of a rule if the rule finds fault whenever it is drawn."""
    path = tuple(rule.paths[0].split("."))
    advice: dict[Mark, Problem | None] = {}  # None: the setting has an effect
    for drawn in _draws_for(tree, rule):
        origin = drawn.locate(path)
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
    """Return True for a default that is written out, as in a resolved file."""
    block = block_at(tuple(map(str, path[:-1])), _value_at(drawn.values, path[:-1]))
    if origin.kind is not None or block is None:
        return False
    return bool(block.model_fields[str(path[-1])].default == _value_at(drawn.values, path))
