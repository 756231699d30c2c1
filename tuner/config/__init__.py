"""A space file, from YAML text to a typed space that samples experiments."""

from tuner.config.load import load, loads
from tuner.config.overrides import as_override
from tuner.config.schema import (
    METRIC_MODES,
    ColumnSplit,
    Confirm,
    Data,
    Experiment,
    Features,
    Resources,
    Scheduler,
    Search,
    ShareSplit,
    Split,
)
from tuner.config.space import FeatureVariant, Sample, Space
from tuner.config.specs import effective_settings
from tuner.training.settings import Augment, Optim, Train

__all__ = [
    "METRIC_MODES",
    "Augment",
    "ColumnSplit",
    "Confirm",
    "Data",
    "Experiment",
    "FeatureVariant",
    "Features",
    "Optim",
    "Resources",
    "Sample",
    "Scheduler",
    "Search",
    "ShareSplit",
    "Space",
    "Split",
    "Train",
    "as_override",
    "effective_settings",
    "load",
    "loads",
]
