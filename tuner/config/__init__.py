"""A space file, from YAML text to a typed space that samples experiments."""

from tuner.config.load import load, loads
from tuner.config.overrides import as_override
from tuner.config.schema import ColumnSplit, Data, Experiment, Features, Resources, Search
from tuner.config.space import Sample, Space

__all__ = [
    "ColumnSplit",
    "Data",
    "Experiment",
    "Features",
    "Resources",
    "Sample",
    "Search",
    "Space",
    "as_override",
    "load",
    "loads",
]
