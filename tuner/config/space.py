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
from tuner.config.start import label_of, middle
from tuner.config.tree import (
    Block,
    Draw,
    Leaf,
    Open,
    Tree,
    open_settings,
    with_choices,
    write,
)
from tuner.config.validate import to_experiment
from tuner.errors import Problem, SpaceError

if TYPE_CHECKING:
    from pipelines.features import FeatureSpec
    from pipelines.settings import ClipSpec
    from tuner.config.fill_in import Choice
    from tuner.config.yaml_text import Scalar
    from tuner.models import ModelSettings
    from tuner.models.resources import Resources


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

    def with_seed(self, seed: int) -> Space:
        """Return the space with another seed of the search."""
        search = self.tree.entries["search"]
        assert isinstance(search, Block)
        entry = search.entries["seed"]
        assert isinstance(entry, Leaf)
        changed = replace(search, entries={**search.entries, "seed": replace(entry, value=seed)})
        return replace(
            self, tree=replace(self.tree, entries={**self.tree.entries, "search": changed})
        )

    @property
    def ranges(self) -> dict[str, Range]:
        """Ranges by name, those of every alternative included, in the order of the file."""
        return {setting.name: setting.range for setting, _ in open_settings(self.tree)}

    @property
    def start(self) -> tuple[dict[str, Scalar], ...]:
        """Configurations to try first: values of some ranges, by name.

        What an entry leaves out is the default of its range, if it has one. Without entries it is
        the configuration of the defaults.
        """
        search = self.template.search
        if not search.start and self.defaults and search.algorithm != "grid":
            return (self.defaults,)
        entries = ({name: label_of(one[name]) for name in one} for one in search.start)
        return tuple(self.defaults | one for one in entries)

    @cached_property
    def defaults(self) -> dict[str, Scalar]:
        """Values that are probably good, by the names of the ranges that have one."""
        return {
            setting.name: setting.default.value  # type: ignore[misc]
            for setting, _ in open_settings(self.tree)
            if setting.default
        }

    @cached_property
    def branching(self) -> frozenset[str]:
        """Names of the choices between blocks, on which depends which other ranges there are."""
        return frozenset(
            setting.name for setting, _ in open_settings(self.tree) if setting.branches
        )

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

    def default_sample(self) -> Sample:
        """Return the configuration that one would take without a search.

        It is the first of ``search.start``; what that leaves out, or all without one, is the
        ``default`` of its range, or else the middle.

        Raises:
            ConfigError: The values are impossible together.
        """
        given = {**self.defaults, **next(iter(self.start), {})}
        return self.sample(lambda name, leaf: given[name] if name in given else middle(leaf))

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

    def resources_of(self, params: Mapping[str, Any], model: str) -> Resources:
        """Return those of `resources` that are a trial's, whose parameters may be older."""
        known = self.alternatives.get("model", ())
        given = {"model": params["model"]} if params.get("model") in known else {}
        draws = (self.tree.draw(with_choices(given)), *self.tree.every_draw(_model_values))
        found = (Experiment.model_validate(drawn.values) for drawn in draws)
        same = (one.resources_of_trial for one in found if one.model.name == model)
        study = self.template.resources
        return next(same, study if study in self.resources else self.resources[0])

    @cached_property
    def resources(self) -> tuple[Resources, ...]:
        """What the trials of this space may ask for, each once."""
        drawn = self.tree.every_draw(_model_values)
        return tuple(
            dict.fromkeys(Experiment.model_validate(d.values).resources_of_trial for d in drawn)
        )

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
        """Return the settings by name (``optim.lr``), as text; equal spaces have equal ones."""
        found: dict[str, str] = {}
        for key, entry in self.tree.entries.items():
            if key == "model":
                entry = _without_resources(entry)  # like the study's, they may change
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
        show = printable_root if name in ("root", "audio_root") else redact
        return replace(tree, value=show(tree.value))
    return tree


def _without_resources(model: Tree) -> Tree:
    if isinstance(model, Open):
        branches = {label: _without_resources(branch) for label, branch in model.branches.items()}
        return replace(model, branches=branches)
    if isinstance(model, Block):
        entries = {key: entry for key, entry in model.entries.items() if key != "resources"}
        return replace(model, entries=entries)
    return model


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
