"""Validation of a tree as an experiment, for the values that its ranges can take."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pydantic import ValidationError

from tuner.config.advice import ADVICE
from tuner.config.messages import describe, unknown_key
from tuner.config.ranges import Options, Range
from tuner.config.rules import RULES
from tuner.config.schema import Experiment, block_at
from tuner.config.start import check_start
from tuner.config.tree import Block, Draw, Invalid, Leaf, Open, Origin, open_settings, with_choices
from tuner.errors import ConfigError, Problem

if TYPE_CHECKING:
    from pipelines.settings import Rule
    from tuner.config.yaml_text import Mark, Scalar

MAX_PROBLEMS: Final = 100
MAX_GRID = 10_000
MAX_FEATURE_SETS = 32
MAX_DRAWS_PER_RULE = 512
MAX_VALUES_TRIED = 32  # of a range of integers; a longer one is tried at its ends
_Loc = tuple["str | int", ...]
Problems: TypeAlias = "dict[tuple[Mark, object], Problem]"  # by place and kind of fault


def check(tree: Block) -> tuple[list[Problem], list[Problem]]:
    """Find everything that is wrong with a tree.

    Each setting is tried alone with every option, bound and (for short ranges of integers) value;
    each rule is tried with all combinations of the settings that it involves.

    Returns:
        The problems; and the warnings, if there is no problem.
    """
    problems: Problems = {}
    _check_settings(tree, problems)
    for rule in RULES if len(problems) <= MAX_PROBLEMS else ():
        for drawn, message in _verdicts(tree, rule):
            if message:
                mark, path = _place(rule, drawn)
                # One report per rule and place, not one per combination.
                problems.setdefault((mark, rule), mark.problem(path, message))
    found = [*_sizes(tree), *_confirmed(tree), *check_start(tree), *problems.values()]
    warnings: dict[tuple[Mark, str], Problem] = {}
    for rule in ADVICE if not found else ():
        for mark, path, message in _advice(tree, rule):
            warnings.setdefault((mark, path), mark.problem(path, message))
    return found, list(warnings.values())


def first_faults(tree: Block, rule: Rule) -> Iterator[Problem]:
    """Report the first draw that breaks a rule, if there is one, at the rule's first setting."""
    for drawn, message in _verdicts(tree, rule):
        if message:
            origin = _origin(tuple(rule.paths[0].split(".")), drawn)
            yield origin.mark.problem(rule.paths[0], message)
            return


def to_experiment(drawn: Draw) -> Experiment:
    """Make the experiment of one draw from a tree that has been checked.

    Raises:
        ConfigError: This combination of values is impossible although each range is valid.
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


def _sizes(tree: Block) -> Iterator[Problem]:
    """Count the combinations of ranges if all of them would be built or visited."""
    shaping = {key: tree.entries[key] for key in ("data", "features") if key in tree.entries}
    features = Block(shaping, tree.mark, tree.key_marks)
    why = "each feature set is built as a whole; use choice, grid, integer or quantized"
    yield from _continuous(features, why)
    if (num_sets := features.count_draws() or 0) > MAX_FEATURE_SETS:
        message = f"the ranges make {num_sets} feature sets; at most {MAX_FEATURE_SETS} allowed"
        yield next(open_settings(features))[0].mark.problem("features", message)
    search = tree.entries.get("search")
    algorithm = search.entries.get("algorithm") if isinstance(search, Block) else None
    if not isinstance(algorithm, Leaf) or algorithm.value != "grid":
        return
    yield from _continuous(tree, "the grid needs a list; use choice, grid or quantized")
    if (num_points := tree.count_draws() or 0) > MAX_GRID:
        message = f"the grid has {num_points:,} points; at most {MAX_GRID:,} are allowed"
        yield algorithm.mark.problem("search.algorithm", message)


def _confirmed(tree: Block) -> Iterator[Problem]:
    """Compare the trials to confirm, where a file gives them, with those of the search."""
    drawn = tree.draw(with_choices({}))
    origin, (experiment, _) = drawn.locate(("confirm", "top")), _repaired(drawn)
    if origin and experiment and experiment.confirm.top > (most := most_trials(tree, experiment)):
        message = f"{experiment.confirm.top} is above the number of trials, {most}; write at most"
        yield origin.mark.problem(origin.path, f"{message} {most}, or search more trials")


def most_trials(tree: Block, experiment: Experiment) -> int:
    """Return the number of trials that a file asks for; a grid has no more than its points."""
    search = experiment.search
    size = tree.count_draws() if search.algorithm == "grid" else None
    return search.trials if size is None else min(search.trials, size)


def _continuous(tree: Block, why: str) -> Iterator[Problem]:
    for setting, _ in open_settings(tree):
        if setting.range.num_values is None:
            message = f"{setting.range.kind} is continuous, but {why}"
            yield setting.mark.problem(setting.name, message)


def _check_settings(tree: Block, problems: Problems) -> None:
    tried: list[Mapping[str, Scalar]] = [{}]
    for setting, context in open_settings(tree):
        default = [setting.default.value] if setting.default else []
        values: list[Any] = [*_values_to_try(setting.range), *default]
        tried += [{**context, setting.name: value} for value in values]
    for chosen in tried:
        drawn = tree.draw(with_choices(chosen))
        try:
            Experiment.model_validate(drawn.values)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                if len(problems) > MAX_PROBLEMS:
                    return
                _collect(item, drawn, problems)


def _values_to_try(range_: Range) -> Sequence[Scalar]:
    """Pick values that represent a range: all of a short one, else its ends."""
    if isinstance(range_, Options):
        return range_.arguments
    ends = (range_.low, range_.high)
    if range_.num_values is None or range_.num_values > MAX_VALUES_TRIED:
        return ends
    return (*ends, *range_.values()[1:-1])  # a fault shows at an end first


def _collect(error: Mapping[str, Any], drawn: Draw, problems: Problems) -> None:
    """Add one error of pydantic to the problems, unless it is there or its value was invalid."""
    if isinstance(error["input"], Invalid):  # its problem has been reported
        return
    path = _path_in(drawn.values, error)
    origin = _origin(path, drawn)
    fault, shown = error["type"], origin.path
    # Report each kind of fault once per numeric range, however many values show it.
    is_one_range = origin.kind not in (None, "choice", "grid")
    place = origin.key_mark if is_one_range or fault == "extra_forbidden" else origin.mark
    if (key := (place, f"{fault} {path[-1:]}")) in problems:
        return
    if fault == "extra_forbidden":
        message = unknown_key(tuple(map(str, path)), _value_at(drawn.values, path[:-1]))
        problems[key] = place.problem(shown, message)
        return
    if fault == "missing":
        shown = f"{shown}.{path[-1]}" if shown else str(path[-1])
    problems[key] = origin.mark.problem(shown, describe(error, path, origin.kind))


def _path_in(values: Any, error: Mapping[str, Any]) -> _Loc:
    """Drop the union tags from pydantic's location: parts that are not keys at that position."""
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


def _verdicts(tree: Block, rule: Rule) -> Iterator[tuple[Draw, str | None]]:
    """Check a rule on every draw in which the settings that it involves are valid."""
    for drawn in _draws_for(tree, rule):
        experiment, broken = _repaired(drawn)
        if experiment and not any(_touches(path, rule) for path in broken):
            yield drawn, rule.check(experiment)


def _draws_for(tree: Block, rule: Rule) -> Iterator[Draw]:
    """Draw all combinations of the settings that a rule involves, or a sample of too many."""

    def thorough(setting: Open) -> Sequence[Scalar]:
        involved = _touches(setting.path, rule)
        return _values_to_try(setting.range) if involved else (setting.first,)

    def quick(setting: Open) -> Sequence[Scalar]:
        return thorough(setting)[: None if setting.branches else 2]

    drawn = list(islice(tree.every_draw(thorough), MAX_DRAWS_PER_RULE + 1))
    if len(drawn) <= MAX_DRAWS_PER_RULE:
        return iter(drawn)
    return islice(tree.every_draw(quick), MAX_DRAWS_PER_RULE)


def _touches(path: Sequence[str | int], rule: Rule) -> bool:
    """Return True if a rule involves a setting, or a block that holds the setting."""
    return any(
        all(a == b for a, b in zip(path, dotted.split("."), strict=False)) for dotted in rule.paths
    )


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


def _advice(tree: Block, rule: Rule) -> Iterator[tuple[Mark, str, str]]:
    """Warn at the first setting of a rule if the rule finds fault whenever it is drawn."""
    path = tuple(rule.paths[0].split("."))
    advice: dict[Mark, tuple[Mark, str, str] | None] = {}  # None: the setting has an effect
    for drawn, message in _verdicts(tree, rule):
        origin = drawn.locate(path)
        if origin is None or _is_plain_default(path, origin, drawn):
            continue
        if not message:
            advice[origin.key_mark] = None
        else:
            advice.setdefault(origin.key_mark, (origin.mark, origin.path, message))
    return filter(None, advice.values())


def _is_plain_default(path: _Loc, origin: Origin, drawn: Draw) -> bool:
    """Return True for a default that is written out, as in a resolved file."""
    block = block_at(tuple(map(str, path[:-1])), _value_at(drawn.values, path[:-1]))
    if origin.kind is not None or block is None:
        return False
    return bool(block.model_fields[str(path[-1])].default == _value_at(drawn.values, path))
