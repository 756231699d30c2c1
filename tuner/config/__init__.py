"""A space file, from YAML text to a typed space that samples experiments."""

from tuner.config.load import load, loads
from tuner.config.overrides import as_override
from tuner.config.schema import (
    METRIC_MODES,
    MODELS,
    Augment,
    Cnn,
    ColumnSplit,
    Confirm,
    Data,
    Experiment,
    Features,
    Model,
    Optim,
    ResNet18,
    Resources,
    Scheduler,
    Search,
    ShareSplit,
    Split,
    Train,
)
from tuner.config.typed_space import FeatureVariant, Sample, Space

__all__ = [
    "METRIC_MODES",
    "MODELS",
    "Augment",
    "Cnn",
    "ColumnSplit",
    "Confirm",
    "Data",
    "Experiment",
    "FeatureVariant",
    "Features",
    "Model",
    "Optim",
    "ResNet18",
    "Resources",
    "Sample",
    "Scheduler",
    "Search",
    "ShareSplit",
    "Space",
    "Split",
    "Train",
    "as_override",
    "load",
    "loads",
]
