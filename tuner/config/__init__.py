"""Space files: from YAML text to a typed space that samples experiments."""

from tuner.config.load import load, loads
from tuner.config.overrides import as_override
from tuner.config.schema import Experiment
from tuner.config.searching import Search
from tuner.config.space import Sample, Space
from tuner.models.resources import Resources

__all__ = ["Experiment", "Resources", "Sample", "Search", "Space", "as_override", "load", "loads"]
