"""Data settings of a space file: location of the audio, split and clips."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from pipelines.settings import Block, ClipSpec, Group, Leaks, Share, SplitSpec

Folds = Annotated[
    int | None,
    Field(
        ge=2,
        le=20,
        description="Cross-validation: the tracks outside the test in so many folds by group. A "
        "trial is trained once for each; its score is the mean over the folds.",
    ),
]


class ShareSplit(Block):
    """A split drawn at random."""

    train: Share = Field(0.70, description="Share of the tracks for training.")
    val: Share = Field(0.15, description="Share for choosing the configuration.")
    test: Share = Field(0.15, description="Share for the test, which is read once at the end.")
    by: Literal["group", "clip"] = Field(
        "group", description="Assign whole groups, or single clips: leaky, for comparison only."
    )
    folds: Folds = None


def _as_texts(values: Any) -> Any:
    """Convert folds to text, the form they have in a manifest: ``[4]`` means ``["4"]``."""
    if not isinstance(values, list | tuple):
        return values
    numbers = (str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in values)
    return tuple(numbers)


_Values = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_texts),
    WithJsonSchema({"type": "array", "items": {"type": ["string", "integer"]}}),
]


class ColumnSplit(Block):
    """A split given by a column of the manifest."""

    column: str = Field(min_length=1, description="Column that holds the split.")
    val: _Values = Field((), description="Values for validation; by default the word `val`.")
    test: _Values = Field((), description="Values for the test; by default the word `test`.")
    folds: Folds = None


def split_kind(value: Any) -> str:
    """Return the form of a split: ``by-word``, ``by-column`` or ``by-shares``."""
    if isinstance(value, str):
        return "by-word"
    is_column = "column" in value if isinstance(value, dict) else isinstance(value, ColumnSplit)
    return "by-column" if is_column else "by-shares"


Split = Annotated[
    Annotated[ShareSplit, Tag("by-shares")]
    | Annotated[ColumnSplit, Tag("by-column")]
    | Annotated[Literal["clip"], Tag("by-word")],  # short for {by: clip}
    Discriminator(split_kind),
]


class Place(NamedTuple):
    """Location of recordings and their classes: the settings of these names."""

    root: str
    label: str = "label"
    audio_root: str | None = None


class Data(ClipSpec):
    """Data settings: location of the audio, split and clips."""

    root: str = Field(
        "demo",
        min_length=1,
        max_length=4096,
        description="A folder, a manifest, a URI of either, or `demo`.",
    )
    label: str = Field(
        "label",
        min_length=1,
        max_length=200,
        description="Column of a manifest that holds the class.",
    )
    audio_root: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Folder or URI that a manifest's paths are relative to; by default its own.",
    )
    group: Group = "auto"
    split: Split = Field(ShareSplit(), description="Shares, a column of the manifest, or `clip`.")
    leaks: Leaks = "report"
    max_bad_share: float = Field(
        0.2, ge=0, le=1, description="Largest share of unusable files; more are an error."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed for the split.")

    @model_validator(mode="before")
    @classmethod
    def _no_number_with_a_hop(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("hop_seconds") is not None:
            return {"clips_per_track": None, **values}
        return values

    @property
    def place(self) -> Place:
        """Where the data is."""
        return Place(self.root, self.label, self.audio_root)

    @property
    def clip(self) -> ClipSpec:
        """Clip settings."""
        return ClipSpec(**{name: getattr(self, name) for name in ClipSpec.model_fields})

    @property
    def split_spec(self) -> SplitSpec:
        """Split settings, in the form of a feature set."""
        how = ShareSplit(by=self.split) if isinstance(self.split, str) else self.split
        given: dict[str, Any]
        if isinstance(how, ColumnSplit):
            given = {"column": how.column, "val_values": how.val, "test_values": how.test}
        else:
            given = {"unit": how.by, "train": how.train, "val": how.val, "test": how.test}
        given["folds"] = how.folds
        return SplitSpec(group=self.group, seed=self.seed, leaks=self.leaks, **given)

    @property
    def num_folds(self) -> int:
        """Number of folds of the cross-validation; 0 without."""
        return 0 if isinstance(self.split, str) else self.split.folds or 0
