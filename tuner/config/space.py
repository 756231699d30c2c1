"""A space: an experiment in which some settings are still open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipelines.plain_text import redact
from pipelines.sources.files import printable_root
from tuner.config.ranges import Options, Range
from tuner.config.schema import Experiment
from tuner.config.start import label_of
from tuner.config.tree import (
    Block,
    Draw,
    Items,
    Leaf,
    Open,
    Tree,
    open_settings,
    with_choices,
    write,
)
from tuner.config.validate import most_trials, to_experiment
from tuner.errors import Problem, SpaceError

if TYPE_CHECKING:
    from pipelines.features import FeatureSpec
    from pipelines.settings import ClipSpec
    from tuner.config.fill_in import Choice
    from tuner.config.yaml_text import Mark, Scalar
    from tuner.models import ModelSettings


@dataclass(frozen=True, slots=True)
class Sample:
    """One configuration of a space.

    Attributes:
        params: Drawn values by name, in the order of the file; a chosen block is given by its
            label: ``{"model": "cnn", "model.cnn.blocks": 3, "optim.lr": 0.001}``.
        experiment: The experiment with these values.
    """

    params: dict[str, Scalar]
    experiment: Experiment


@dataclass(frozen=True)
class Space:
    """A space file that has been read and checked; made by ``tuner.config.load``.

    Attributes:
        file: Path of the file, as given.
        source: Text of the file.
        tree: The resolved file: overrides applied, defaults filled in, ranges kept.
        warnings: Warnings, such as settings without effect.
        choices: Values that were chosen for settings that the file leaves ``auto``.
        remarks: Warnings about settings that do not fit the data.
    """

    file: str = field(compare=False)
    source: str = field(compare=False, repr=False)
    tree: Block = field(repr=False)
    warnings: tuple[Problem, ...] = field(default=(), compare=False)
    choices: tuple[Choice, ...] = field(default=(), compare=False)
    remarks: tuple[Problem, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.template.name

    @cached_property
    def template(self) -> Experiment:
        """The experiment with every range at its first option or lower end."""
        return Experiment.model_validate(self.tree.draw(with_choices({})).values)

    @property
    def ranges(self) -> dict[str, Range]:
        """Ranges by name, those of every alternative included, in the order of the file."""
        return {setting.name: setting.range for setting, _ in open_settings(self.tree)}

    @property
    def start(self) -> tuple[dict[str, Scalar], ...]:
        """Configurations to try first: values of some ranges, by name."""
        given = self.template.search.start
        return tuple({name: label_of(value) for name, value in one.items()} for one in given)

    @property
    def alternatives(self) -> dict[str, tuple[Scalar, ...]]:
        """Labels of each choice between blocks that every configuration makes, by name."""
        return {
            setting.name: setting.range.arguments
            for setting, context in open_settings(self.tree)
            if not context and any(isinstance(b, Block) for b in setting.branches.values())
        }

    def sample(self, choose: Callable[[str, Range], Any]) -> Sample:
        """Draw one configuration (define-by-run).

        Args:
            choose: Function that returns a value of a range, given the name of the parameter; for
                a choice between blocks, the label. It is called only for the ranges of the
                alternatives that it chose.

        Raises:
            SpaceError: ``choose`` returned a value that does not belong to the range.
            ConfigError: The values are impossible together.
        """

        def ask(setting: Open) -> Scalar:
            try:
                return setting.range.settle(choose(setting.name, setting.range))
            except SpaceError as error:
                raise SpaceError(f"{setting.name}: {error}") from None

        drawn = self.tree.draw(ask)
        return Sample(drawn.params, to_experiment(drawn))

    @cached_property
    def _grid(self) -> list[Draw]:
        """Every configuration, 4 kB each; a search asks for one after the other."""
        return list(self.tree.every_draw(lambda setting: setting.range.values()))

    def grid_point(self, ordinal: int) -> Sample:
        """Return one of the configurations of `enumerate_grid`, from 0.

        Raises:
            SpaceError: A range is continuous.
        """
        drawn = self._grid[ordinal]
        return Sample(drawn.params, to_experiment(drawn))

    def enumerate_grid(self) -> Iterator[Sample]:
        """List every configuration; the last range of the file varies fastest.

        Raises:
            SpaceError: A range is continuous.
        """
        return map(self.grid_point, range(len(self._grid)))

    @property
    def num_trials(self) -> int:
        """Number of trials of a search: at most one for each configuration."""
        asked, size = self.template.search.trials, self.tree.count_draws()
        return asked if size is None else min(asked, size)

    def feature_variants(self) -> tuple[tuple[ClipSpec, FeatureSpec], ...]:
        """List the feature sets that the trials of this space need, each once."""
        drawn = self.tree.every_draw(_feature_values)
        keys = (Experiment.model_validate(d.values).feature_set_key for d in drawn)
        return tuple(dict.fromkeys(keys))

    def models(self) -> tuple[ModelSettings, ...]:
        """List the models of this space, each once; their numbers are at the lower ends."""
        drawn = self.tree.every_draw(_model_values)
        return tuple(dict.fromkeys(Experiment.model_validate(d.values).model for d in drawn))

    @property
    def max_epochs(self) -> int:
        """Largest number of epochs that a configuration asks for."""
        drawn = self.tree.every_draw(_largest_epochs)
        return max(Experiment.model_validate(d.values).train.epochs for d in drawn)

    @property
    def is_pretrained(self) -> bool:
        """True if a model starts from weights, or features come from a pretrained network."""
        embedded = any(feature.kind == "embedding" for _, feature in self.feature_variants())
        return embedded or any(model.initial_weights for model in self.models())

    def settings(self) -> dict[str, str]:
        """Return every setting by name (``optim.lr``), as text; equal spaces have equal ones."""
        found: dict[str, str] = {}
        for key, entry in self.tree.entries.items():
            if isinstance(entry, Block):
                found |= {f"{key}.{name}": write(inner) for name, inner in entry.entries.items()}
            else:
                found[key] = write(entry)
        return found

    def without_secrets(self) -> Space:
        """Return the space without the users, passwords and keys of the addresses in it."""
        tree = _without_secrets(self.tree)
        assert isinstance(tree, Block)
        if tree == self.tree and redact(self.source) == self.source:
            return self
        # The text of the file may contain the secret too, in any spelling that YAML allows.
        return replace(self, tree=tree, source=tree.text())

    def to_yaml(self) -> str:
        """Write the resolved file, ranges and defaults included; it loads as an equal space."""
        return self.tree.text({one.setting: f"auto: {one.reason}" for one in self.choices})


def _without_secrets(tree: Tree, name: str = "") -> Tree:
    if isinstance(tree, Block):
        shown = {key: _without_secrets(entry, key) for key, entry in tree.entries.items()}
        return replace(tree, entries=shown)
    if isinstance(tree, Leaf) and isinstance(tree.value, str):
        show = printable_root if name == "root" else redact
        return replace(tree, value=show(tree.value))
    return tree


def _model_values(setting: Open) -> Sequence[Scalar]:
    if setting.path[0] == "model" and isinstance(setting.range, Options):
        return setting.range.arguments
    return (setting.first,)


def _largest_epochs(setting: Open) -> Sequence[Scalar]:
    if setting.path not in (("train",), ("train", "epochs")):
        return (setting.first,)
    return setting.range.arguments if isinstance(setting.range, Options) else (setting.range.high,)


def _feature_values(setting: Open) -> Sequence[Scalar]:
    # The model decides the kind of features if the file leaves it open.
    path = setting.path
    decides = path[0] in ("data", "features") or path in (("model",), ("model", "name"))
    return setting.range.values() if decides else (setting.first,)


def fill_defaults(tree: Block) -> Block:
    """Add the defaults to every block that the file leaves out, in each alternative.

    Args:
        tree: A tree that has been checked.
    """
    filled = _fill(tree, tree, (), {})
    assert isinstance(filled, Block)
    return filled


def _fill(tree: Tree, root: Block, path: tuple[str, ...], context: Mapping[str, Scalar]) -> Tree:
    if isinstance(tree, Open):
        branches = {
            label: _fill(branch, root, path, {**context, tree.name: label})
            for label, branch in tree.branches.items()
        }
        return replace(tree, branches=branches)
    if not isinstance(tree, Block):
        return tree
    entries = {k: _fill(entry, root, (*path, k), context) for k, entry in tree.entries.items()}
    drawn = root.draw(with_choices(context))
    experiment = Experiment.model_validate(drawn.values)
    values = experiment.model_dump(mode="json")
    # What is not written must fit what is: the resolved file is loaded again.
    values["confirm"]["top"] = min(experiment.confirm.top, most_trials(root, experiment))
    for piece in path:
        values = values[piece]
    # With folds, shares of one split would look as if they were used.
    unread = ("train", "val") if "train" in values and values.get("folds") else ()
    for key, value in values.items():
        # clips_per_track has a default only where a range of hop_seconds draws null.
        depends = key == "clips_per_track" and isinstance(entries.get("hop_seconds"), Open)
        if key not in entries and key not in unread and not depends:
            entries[key] = _as_tree(value, tree.mark)
    key_marks = {**dict.fromkeys(entries, tree.mark), **tree.key_marks}
    return replace(tree, entries=entries, key_marks=key_marks)


def _as_tree(value: Any, mark: Mark) -> Tree:
    if isinstance(value, dict):
        entries = {key: _as_tree(inner, mark) for key, inner in value.items()}
        return Block(entries, mark, dict.fromkeys(entries, mark))
    if isinstance(value, list):
        return Items(tuple(_as_tree(item, mark) for item in value), mark)
    return Leaf(value, mark)
