"""A commented space file for a data set: `auto.yaml` with its choices written out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from tuner.config.data import Place
from tuner.config.fill_in import AUTO
from tuner.config.load import loads
from tuner.config.look_up import arguments_of
from tuner.config.schema import Experiment, block_at
from tuner.config.yaml_text import compose, write_rounded, write_scalar

if TYPE_CHECKING:
    from pipelines.facts import DataFacts
    from tuner.config.fill_in import Choice, Surroundings
    from tuner.config.space import Space

WIDTH = 118
_MAX_CLASSES = 12
_HEAD = (
    "A comment says what a setting is, and why its value was chosen for this data. Change what "
    "you like. A range is searched, both ends included, and may replace most values: "
    "{uniform: [0.0, 0.5]}, {log_uniform: [1e-4, 1e-2]}, {integer: [2, 5]}, "
    "{choice: [relu, gelu]}. `auto` is chosen when a study begins. --print-config shows all "
    "defaults."
)


@dataclass
class _Edits:
    """Settings that differ from what `auto.yaml` and the choices say."""

    dropped: set[str] = field(default_factory=set)
    left_auto: set[str] = field(default_factory=set)


def starter(space: Space, around: Surroundings, file: str) -> str:
    """Write the space file; it loads as the same space, with no warning about its values.

    Settings without effect on this data are left out. A value that is the best to be had, but
    that the program would warn about, stays ``auto``, with the value in the comment.

    Args:
        space: The shipped ``auto.yaml``, loaded for the data and under the name of the study.
        around: Where it was loaded.
        file: Name of the new file, for the commands in its head.
    """
    facts = around.facts(space.template.data.place)
    chosen = {one.setting for one in space.choices}
    edits = _Edits({one.setting for one in space.choices if one.reason.startswith("not used")})
    while True:
        text = "\n".join([*_head(space, facts, file), *_settings(space, edits)]) + "\n"
        found = loads(text, file, (), around)
        useless = {one.path for one in found.warnings} - edits.dropped
        doubtful = {one.path for one in found.remarks} & chosen - edits.left_auto
        if not useless and not doubtful:
            return text
        edits.dropped |= useless
        edits.left_auto |= doubtful


def _head(space: Space, facts: DataFacts, file: str) -> Iterator[str]:
    classes = [f"{name!r} {number}" for name, number in facts.num_by_class.items()]
    more = f" and {len(classes) - _MAX_CLASSES} more" if len(classes) > _MAX_CLASSES else ""
    ends = (0.0, 1.0)
    lengths = dict.fromkeys(f"{write_rounded(facts.length_seconds(end))} s" for end in ends)
    rates = dict.fromkeys(f"{facts.rate_hz(end):,} Hz" for end in ends)
    unread = f", of which {len(facts.unreadable)} cannot be read" if facts.unreadable else ""
    num_groups = sum(facts.groups_by_class(space.template.data.group).values())
    groups = "No artists or other groups are listed, so any two files may be in different splits."
    if num_groups < len(facts.tracks):
        groups = f"Each of {num_groups:,} groups, such as artists, stays in one split."
    yield from _comment(
        f"A study of {space.template.data.root}: {len(facts.tracks):,} tracks in {len(classes)} "
        f"classes ({', '.join(classes[:_MAX_CLASSES])}{more}), {' to '.join(lengths)}, "
        f"{' to '.join(rates)} ({facts.num_looked_at} looked at{unread}). {groups}"
    )
    yield from _comment(_HEAD)
    budget = space.template.search.budget
    yield f"#   python -m tuner.run {file} --dry-run    # shows the plan, and stops"
    yield f"#   python -m tuner.run {file}              # about {budget} in all"


def _settings(space: Space, edits: _Edits) -> Iterator[str]:
    top = compose(space.source, space.file)
    assert isinstance(top, yaml.MappingNode)
    choices = {one.setting: one for one in space.choices}
    place, usual = space.template.data.place, Place("")
    given = {"name": space.name} | {
        f"data.{name}": value
        for name, value in place._asdict().items()
        if value is not None and value != usual._asdict()[name]
    }
    for key, node in top.value:
        if not isinstance(node, yaml.MappingNode) or arguments_of(node):
            yield from _setting("", key.value, _text(space.source, node), choices, given, edits)
            continue
        yield f"{key.value}:"
        for name, value in node.value:
            path, text = f"{key.value}.{name.value}", _text(space.source, value)
            yield from _setting("  ", path, text, choices, given, edits)
            for more in sorted(given.keys() - {"name", path}) if path == "data.root" else ():
                yield from _setting("  ", more, "", choices, given, edits)


def _setting(
    indent: str, path: str, text: str, choices: Mapping[str, Choice], given: Mapping[str, str],
    edits: _Edits,
) -> Iterator[str]:  # fmt: skip
    """Write one setting, with a comment behind it, or above it if there is no room."""
    if path in edits.dropped:
        return
    block, _, name = path.rpartition(".")
    about = _description(block, name)
    if path in given:
        text = write_scalar(given[path])
    elif choice := choices.get(path):
        value, reason = choice.value, choice.reason
        text = AUTO if path in edits.left_auto else value
        about += f" Now {value}: {reason}." if path in edits.left_auto else f" Chosen: {reason}."
    line = f"{indent}{name}: {text}"
    if len(line) + len(about) + 4 <= WIDTH:
        yield f"{line}  # {about}"
        return
    yield from (indent + one for one in _comment(about))
    yield from [line] if len(line) <= WIDTH else _broken(indent, name, text)


def _description(block: str, name: str) -> str:
    settings = block_at((block,), {}) if block else Experiment
    assert settings is not None
    return settings.model_fields[name].description or ""


def _broken(indent: str, name: str, text: str) -> Iterator[str]:
    """Write a list, or the options of a choice, on a line each."""
    node = compose(text, "")
    options = arguments_of(node)
    yield f"{indent}{name}:"
    if options:
        yield f"{indent}  choice:"
        indent += "  "
    for one in options or (node.value if isinstance(node, yaml.SequenceNode) else []):
        yield f"{indent}  - {_text(text, one)}"


def _text(source: str, node: yaml.Node) -> str:
    return source[node.start_mark.index : node.end_mark.index].rstrip()


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH - 4, break_long_words=False)]
