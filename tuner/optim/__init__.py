"""Optimizers by name; learning rates as pure functions of the step."""

from tuner.optim.optimizers import OptimizerName, build_optimizer
from tuner.optim.schedules import ScheduleName, learning_rate

__all__ = ["OptimizerName", "ScheduleName", "build_optimizer", "learning_rate"]
