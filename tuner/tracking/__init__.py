"""Tracking: a study's ledger shown as MLflow runs, one parent and a child for each trial.

The ledger stays the truth. A tracker is given its records in order, all of them again after a
restart, and the runs come out the same. Only the driver of a study tracks.
"""

from __future__ import annotations

from tuner.tracking.memory import MemoryTracker
from tuner.tracking.mlflow_tracker import MlflowTracker, Patience, open_tracker
from tuner.tracking.projection import Tracker
from tuner.tracking.store import redact

__all__ = ["MemoryTracker", "MlflowTracker", "Patience", "Tracker", "open_tracker", "redact"]
