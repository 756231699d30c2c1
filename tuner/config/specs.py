"""The settings of an experiment that change what a trial learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.config.schema import Experiment


def effective_settings(experiment: Experiment) -> dict[str, Any]:
    """Return the settings that change what a trial learns; trials that agree in them are the same.

    A model that fits at once sees the features and whether classes are balanced, and nothing of
    the optimizer, the augmentation and the rest of training.
    """
    if not experiment.model.fits_at_once:
        return experiment.model_dump(mode="json", exclude={"resources"})
    return {
        "model": experiment.model.model_dump(mode="json"),
        "features": experiment.front_end.model_dump(),
        "balance": experiment.train.balance != "none",
    }
