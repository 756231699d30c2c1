"""The number of trials, and their length, that a time budget holds."""

from __future__ import annotations

FULL_TRIALS = 8
"""Fewest trials of full length that are worth calling a search."""


def trials_that_fit(budget_seconds: float, trial_seconds: float, at_once: int) -> float:
    """Return how many trials of ``trial_seconds`` a budget holds, ``at_once`` at a time."""
    return at_once * budget_seconds / trial_seconds


def epochs_that_fit(
    budget_seconds: float, epoch_seconds: float, at_once: int, num_trials: int = FULL_TRIALS
) -> int:
    """Return the most epochs with which a budget holds ``num_trials`` trials of full length.

    Args:
        budget_seconds: Time limit of the search.
        epoch_seconds: Time of an epoch, the mean over the families.
        at_once: Number of trials that run at the same time.
        num_trials: Number of trials to fit.

    Returns:
        At least 1, even if the budget does not hold that.
    """
    return max(1, int(trials_that_fit(budget_seconds, epoch_seconds, at_once) / num_trials))
