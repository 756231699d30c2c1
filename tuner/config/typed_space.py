"""A space: an experiment in which some settings are still open."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipelines.sources.files import printable_root
from tuner.config.emit import settings, to_yaml
from tuner.config.range_kinds import Choice, Grid, arguments_of, discrete_values, settle
from tuner.config.schema import Data, Experiment, Features
from tuner.config.specs import clip_spec, feature_spec
from tuner.config.tree import (
    Block,
    Leaf,
    Open,
    count_draws,
    draw,
    every_draw,
    first_value,
    open_settings,
    with_choices,
)
from tuner.config.validate import to_experiment
from tuner.errors import SpaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pipelines.settings import ClipSpec, FeatureSpec
    from tuner.config.model_blocks import Model
    from tuner.config.range_kinds import Range, Scalar
    from tuner.config.tree import Path
    from tuner.errors import Problem


@dataclass(frozen=True, slots=True)
class Sample:
    """One configuration of a space.

    Attributes:
        params: What was drawn, by name, in the order of the file; a block that was chosen stands
            as its label: ``{"model": "cnn", "model.cnn.blocks": 3, "optim.lr": 0.001}``.
        experiment: The experiment with these values.
    """

    params: dict[str, Scalar]
    experiment: Experiment


@dataclass(frozen=True, slots=True)
class FeatureVariant:
    """One feature set that trials of a space need."""

    data: Data
    features: Features


def _alternatives(block: Block) -> Iterator[tuple[str, tuple[Scalar, ...]]]:
    for entry in block.entries.values():
        if isinstance(entry, Block):
            yield from _alternatives(entry)
        elif isinstance(entry, Open) and any(
            isinstance(b, Block) for b in entry.branches.values()
        ):
            yield entry.name, arguments_of(entry.range)


@dataclass(frozen=True, slots=True)
class Space:
    """What a space file says; made by ``tuner.config.load``.

    Attributes:
        file: Path of the file, as given.
        source: Its text as read.
        tree: The resolved file: overrides applied, defaults filled in, ranges kept.
        warnings: Settings without effect.
    """

    file: str = field(compare=False)
    source: str = field(compare=False, repr=False)
    tree: Block = field(repr=False)
    warnings: tuple[Problem, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.template.name

    @property
    def template(self) -> Experiment:
        """The experiment with every range at its first option or lower end."""
        return Experiment.model_validate(draw(self.tree, with_choices({})).values)

    @property
    def ranges(self) -> dict[str, Range]:
        """All ranges by name, those of every alternative included, in the order of the file."""
        return {found.setting.name: found.setting.range for found in open_settings(self.tree)}

    @property
    def alternatives(self) -> dict[str, tuple[Scalar, ...]]:
        """The choices between blocks that every configuration makes: their labels, by name."""
        return dict(_alternatives(self.tree))

    def sample(self, choose: Callable[[str, Range], Any]) -> Sample:
        """Draw one configuration, define by run.

        Args:
            choose: Returns a value of a range, given the parameter's name; of a choice between
                blocks, the label. Asked only for the ranges of the alternatives that it chose.

        Raises:
            SpaceError: ``choose`` returned a value that does not belong to the range.
            ConfigError: The values are impossible together.
        """

        def ask(setting: Open, _: Path) -> Scalar:
            try:
                return settle(setting.range, choose(setting.name, setting.range))
            except SpaceError as error:
                raise SpaceError(f"{setting.name}: {error}") from None

        drawn = draw(self.tree, ask)
        return Sample(drawn.params, to_experiment(drawn))

    def resolve(self, params: Mapping[str, Scalar]) -> Experiment:
        """Rebuild the experiment of a recorded sample.

        Args:
            params: ``Sample.params`` of an earlier sample of this space.

        Raises:
            SpaceError: A parameter is missing, unknown here, or outside its range.
        """
        missing = object()

        def look_up(name: str, _: Range) -> Any:
            value = params.get(name, missing)
            if value is missing:
                raise SpaceError(f"{name} has no value; this space asks for it")
            return value

        sample = self.sample(look_up)
        unknown = [name for name in params if name not in sample.params]
        if unknown:
            raise SpaceError(f"{', '.join(unknown)} unknown here; this space does not ask for it")
        return sample.experiment

    def enumerate_grid(self) -> Iterator[Sample]:
        """List every configuration, the last range of the file running fastest.

        Raises:
            SpaceError: A range is continuous.
        """
        for drawn in every_draw(self.tree, _all_values):
            yield Sample(drawn.params, to_experiment(drawn))

    def grid_size(self) -> int | None:
        """Count the configurations of the grid; None when a range is continuous."""
        return count_draws(self.tree)

    def feature_variants(self) -> tuple[FeatureVariant, ...]:
        """List the feature sets that the trials of this space need, each once."""
        variants: dict[tuple[ClipSpec, FeatureSpec], FeatureVariant] = {}
        for drawn in every_draw(self.tree, _feature_values):
            experiment = Experiment.model_validate(drawn.values)
            variant = FeatureVariant(experiment.data, experiment.stored_features)
            key = clip_spec(variant.data), feature_spec(variant.features)
            variants.setdefault(key, variant)
        return tuple(variants.values())

    def models(self) -> tuple[Model, ...]:
        """List the models of this space, each once; of their numbers the first ones."""
        drawn = every_draw(self.tree, _model_values)
        return tuple(dict.fromkeys(Experiment.model_validate(d.values).model for d in drawn))

    def settings(self) -> dict[str, str]:
        """Every setting by name (``optim.lr``), as text; two spaces are equal when these are."""
        return settings(self.tree)

    def without_secrets(self) -> Space:
        """The same space as it may be written down: no user, password or key in a data URI."""
        data = self.tree.entries["data"]
        root = data.entries["root"] if isinstance(data, Block) else None
        if not isinstance(data, Block) or not isinstance(root, Leaf):
            return self
        shown = printable_root(str(root.value))
        if shown == root.value:
            return self
        entries = {**data.entries, "root": replace(root, value=shown)}
        shown_data = replace(data, entries=entries)
        tree = replace(self.tree, entries={**self.tree.entries, "data": shown_data})
        # The file's own text may hold the secret too, in any of YAML's spellings.
        return replace(self, tree=tree, source=to_yaml(tree))

    def to_yaml(self) -> str:
        """Write the resolved file, ranges and defaults included; it loads as an equal space."""
        return to_yaml(self.tree)


def _all_values(setting: Open, _: Path) -> Sequence[Scalar]:
    return discrete_values(setting.range)


def _model_values(setting: Open, path: Path) -> Sequence[Scalar]:
    if path[0] == "model" and isinstance(setting.range, Choice | Grid):
        return discrete_values(setting.range)
    return (first_value(setting),)


def _feature_values(setting: Open, path: Path) -> Sequence[Scalar]:
    # The model decides on the kind of features where the file leaves that open.
    shapes_features = path[0] in ("data", "features") or path in (("model",), ("model", "name"))
    return discrete_values(setting.range) if shapes_features else (first_value(setting),)
