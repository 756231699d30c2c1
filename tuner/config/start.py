"""Configurations that are known before a search: `search.start`, and the middle of each range."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tuner.config.messages import nearest
from tuner.config.ranges import Options, Quantized
from tuner.config.tree import Block, Invalid, Items, Leaf, Tree, open_settings, write
from tuner.config.yaml_text import write_scalar
from tuner.errors import SpaceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tuner.config.ranges import Range
    from tuner.config.yaml_text import Scalar
    from tuner.errors import Problem


def label_of(value: Any) -> Any:
    """Return a value as the parameters of a trial have it: a list as ``a + b``."""
    return " + ".join(map(str, value)) if isinstance(value, list | tuple) else value


def middle(range_: Range) -> Scalar:
    """Return the value of a range in the default configuration.

    That is the first option, or the number in the middle: the geometric one of a range in the
    logarithm, the lower one of two steps.
    """
    if isinstance(range_, Options):
        return range_.arguments[0]
    if isinstance(range_, Quantized):
        return range_.values()[(range_.num_values - 1) // 2]
    if range_.log:
        between = math.exp((math.log(range_.low) + math.log(range_.high)) / 2)
    else:
        between = range_.low + (range_.high - range_.low) / 2
    value = math.floor(between * (1 + 1e-12)) if range_.whole else between  # 8 is exp(log(8))
    return min(max(value, range_.low), range_.high)  # which can round past its end


def check_start(tree: Block) -> Iterator[Problem]:
    """Find parameters of ``search.start`` that no trial of the space could have."""
    search = tree.entries.get("search")
    start = search.entries.get("start") if isinstance(search, Block) else None
    for entry in start.items if isinstance(start, Items) else ():
        if isinstance(entry, Block):
            yield from _check_entry(tree, entry)


def _check_entry(tree: Block, entry: Block) -> Iterator[Problem]:
    given = {name: _value(part) for name, part in entry.entries.items()}
    known: list[str] = []
    for setting, context in open_settings(tree):
        known.append(name := setting.name)
        if name not in given or isinstance(given[name], Invalid):
            continue
        lacking = [(key, label) for key, label in context.items() if given.get(key) != label]
        if lacking:
            key, label = lacking[0]
            has = f", but has {write_scalar(given[key])}" if key in given else ""
            message = f"this configuration needs {key}: {write_scalar(label)} for it{has}"
            yield entry.key_marks[name].problem(f"search.start: {name}", message)
            continue
        try:
            setting.range.settle(given[name])
        except SpaceError as error:
            yield entry.entries[name].mark.problem(f"search.start: {name}", str(error))
    for name in given.keys() - known:
        near = nearest(name, known, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"it has {', '.join(known) or 'none'}"
        message = f"not a range of this space; {hint} Remove it, or set search.start=[]"
        yield entry.key_marks[name].problem(f"search.start: {name}", message)


def _value(part: Tree) -> Any:
    if isinstance(part, Items):
        return label_of([_value(item) for item in part.items])
    return part.value if isinstance(part, Leaf) else write(part)
