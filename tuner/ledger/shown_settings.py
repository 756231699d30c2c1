"""The sampled settings of a trial that a reader is shown: those that its model reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from pydantic import ValidationError

from tuner.config import Experiment
from tuner.config.advice import has_effect
from tuner.config.read_tree import read_tree
from tuner.config.tree import Block, Leaf, Open, write
from tuner.config.yaml_text import compose
from tuner.errors import ConfigError

# Plain settings in which an alternative differs from those of its name, by parameter and label.
Alternatives: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Any]]]


def alternatives(settings: Mapping[str, str]) -> Alternatives:
    """Return how the alternatives of each choice between blocks differ, ``linear#2`` for one.

    Args:
        settings: Settings of a study by name, as its ledger has them.
    """
    found = {}
    for name, text in settings.items():
        try:
            root = compose(f"{name}: {text}", name) if text.startswith("{choice: [{") else None
            setting = read_tree(root)[0].entries[name] if root is not None else None  # type: ignore[arg-type]
        except ConfigError:  # a ledger of an early version
            continue
        if isinstance(setting, Open):
            found[name] = _differences(setting)
    return found


def _differences(setting: Open) -> dict[str, dict[str, Any]]:
    blocks = {str(k): b.entries for k, b in setting.branches.items() if isinstance(b, Block)}
    found = {}
    for label, own in blocks.items():
        alike = [block for other, block in blocks.items() if _base(other) == _base(label)]
        found[label] = {
            f"{setting.name}.{key}": part.value
            for key, part in own.items()
            if isinstance(part, Leaf) and len({write(one[key]) for one in alike if key in one}) > 1
        }
    return found


def _base(label: str) -> str:
    """Return the name that alternatives share; those without one are numbered."""
    return "" if label.isdigit() else re.sub(r"#\d+$", "", label)


def full(
    params: Mapping[str, Any], config: Mapping[str, Any], known: Alternatives
) -> dict[str, Any]:
    """Return the parameters that change what the model of a trial learns.

    Args:
        params: Its sampled values by the names of their parameters.
        config: Its experiment, as the ledger has it.
        known: The alternatives of its study; settings that tell those of one name apart are added.
    """
    try:
        experiment = Experiment.model_validate(config)
    except ValidationError:  # a fusion, or a trial of an early version
        return dict(params)
    found: dict[str, Any] = {}
    for name, value in params.items():
        if has_effect(experiment, setting_of(name, params)):
            found |= {name: value, **known.get(name, {}).get(str(value), {})}
    return found


def in_short(
    params: Mapping[str, Any], config: Mapping[str, Any], known: Alternatives
) -> dict[str, Any]:
    """Return the same by short names, without the labels of alternatives.

    ``model.linear#2.l2`` is ``l2``, and ``model`` is ``linear``; a value that is drawn from a
    range within a choice takes the place of that choice.
    """
    found: dict[str, Any] = {}
    for name, value in full(params, config, known).items():
        base = _base(str(value)) if name in known else value
        if base or name not in known:
            found[setting_of(name, params)] = base
    last = [path.rpartition(".")[2] for path in found]
    return {
        short if last.count(short) == 1 else path: value
        for short, (path, value) in zip(last, found.items(), strict=True)
    }


def setting_of(name: str, params: Mapping[str, Any]) -> str:
    """Return the setting of a parameter: its name without the labels of alternatives."""
    for choice, label in reversed(list(params.items())):
        if f"{name}.".startswith(inside := f"{choice}.{label}."):
            name = f"{choice}.{name[len(inside) :]}".rstrip(".")
    return name
