"""Settings that a space file leaves ``auto``: found in its document, and replaced by values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import yaml

from tuner.config.automatic import TABLE
from tuner.config.data import Place
from tuner.config.look_up import arguments_of, node_at, value_at
from tuner.config.overrides import replaced
from tuner.config.situation import Situation
from tuner.config.yaml_text import compose, mark_of
from tuner.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.facts import DataFacts

AUTO = "auto"
DEMO_ROOT = "demo"


class Choice(NamedTuple):
    """The value that was chosen for a setting.

    Attributes:
        setting: Its dotted path.
        value: The value, as YAML on one line.
        reason: The reason for it, in words.
    """

    setting: str
    value: str
    reason: str


class Surroundings(Protocol):
    """The data and the weights that values are chosen for.

    They are asked only if a file needs it, perhaps several times.
    """

    def facts(self, place: Place) -> DataFacts:
        """Return facts about the data at a place; raise ``UserError`` if there are none."""

    def missing_networks(self) -> Mapping[str, str]:
        """Return the pretrained networks whose weights cannot be had, each with the reason."""

    def has_bf16(self) -> bool:
        """Return True if trials can multiply bfloat16 in hardware."""

    def recorded(self, study: str) -> Sequence[Choice] | None:
        """Return the choices of a study that has begun, or None if there is no such study."""


class Anywhere:
    """Surroundings of a file that is read without its data: the demo, and all networks."""

    def facts(self, place: Place) -> DataFacts:
        """Return the facts about the demo."""
        from pipelines.demo import demo_facts

        return demo_facts()

    def missing_networks(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    def has_bf16(self) -> bool:
        """Return False."""
        return False

    def recorded(self, study: str) -> None:
        """Return None."""


def place_of(document: yaml.Node) -> Place:
    """Return where the data of a document is."""
    root, label, audio_root = (value_at(document, f"data.{name}") for name in Place._fields)
    audio = None if audio_root in (None, "null") else str(audio_root)
    return Place(str(root or DEMO_ROOT), str(label or "label"), audio)


def fill_in(
    document: yaml.MappingNode, around: Surroundings
) -> tuple[yaml.MappingNode, tuple[Choice, ...]]:
    """Replace each ``auto`` of a setting in ``automatic.TABLE`` by a value.

    Args:
        document: The top of the document, with overrides applied.
        around: What the values are chosen for. A study that has begun keeps its choices.

    Returns:
        The new top, in which a value has the place of its ``auto``; and the choices.

    Raises:
        ConfigError: A range contains ``auto``.
        UserError: The data cannot be looked at, or no file of it can be read.
    """
    message = "auto cannot be inside a range; write auto alone, or the values"
    faults = [
        mark_of(node).problem(setting, message)
        for setting in TABLE
        for node in _autos_in(node_at(document, setting))
    ]
    if faults:
        raise ConfigError(faults)
    wanted = [setting for setting in TABLE if value_at(document, setting) == AUTO]
    if not wanted:
        return document, ()
    recorded = around.recorded(str(value_at(document, "name"))) or ()
    made = {one.setting: one for one in recorded}
    missing = {} if made.keys() >= set(wanted) else around.missing_networks()
    for setting in wanted:
        if setting not in made:
            facts = around.facts(place_of(document))
            facts.require_readable()
            situation = Situation(facts, missing, document, around.has_bf16())
            made[setting] = Choice(setting, *TABLE[setting](situation))
        place, value = node_at(document, setting), compose(made[setting].value, AUTO)
        assert place is not None
        assert value is not None
        _move(value, place)
        document = replaced(document, setting.split("."), value)
    return document, tuple(made[setting] for setting in wanted)


def _autos_in(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """Find each ``auto`` among the arguments of a range, and of the ranges in it."""
    for one in arguments_of(node):
        if isinstance(one, yaml.ScalarNode) and one.value == AUTO:
            yield one
        yield from _autos_in(one)


def _move(node: yaml.Node, place: yaml.Node) -> None:
    """Give a node, and all nodes in it, the place of another one in the file."""
    node.start_mark, node.end_mark = place.start_mark, place.end_mark
    for child in [] if isinstance(node, yaml.ScalarNode) else node.value:
        for one in child if isinstance(child, tuple) else (child,):
            _move(one, place)
