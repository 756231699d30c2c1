"""Optimizers by name; learning rates as pure functions of the step."""

from tuner.training.optim.optimizers import OptimizerName, build_optimizer
from tuner.training.optim.schedules import ScheduleName, learning_rate

__all__ = ["OptimizerName", "ScheduleName", "build_optimizer", "learning_rate"]
