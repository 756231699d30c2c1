"""The course of a search: what it had found when, by family, and what it bought."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from tuner.config.searching import Scheduler
from tuner.ledger.selection import ONE_STANDARD_ERROR
from tuner.ledger.states import State
from tuner.ledger.trial_rows import num_folds
from tuner.training import uncertainty

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tuner.ledger.comparison import Comparison
    from tuner.ledger.summary import Summary
    from tuner.ledger.trial_rows import TrialRow


class Step(NamedTuple):
    """A trial that has ended, and the best value so far."""

    minutes: float
    trial: TrialRow
    value: float
    best: float


def best_so_far(study: Summary) -> list[Step]:
    """Return the ranked trials in the order they ended, in minutes since the search began."""
    begin = min((row.start_seconds for row in study.trials), default=0.0)
    ended = [(row.end_seconds, row) for row in study.ranked if row.end_seconds is not None]
    choose = max if study.maximise else min
    steps: list[Step] = []
    for seconds, row in sorted(ended, key=lambda one: one[0]):
        value = study.value(row)
        # A mean over some of the folds is no result of a trial.
        counted = [] if row.is_partial else [value]
        best = choose(counted + [step.best for step in steps[-1:]], default=value)
        steps.append(Step((seconds - begin) / 60, row, value, best))
    return steps


def rungs(config: Mapping[str, Any]) -> list[int]:
    """Return the epochs at which the scheduler compared the trials; with folds, after each."""
    scheduler = Scheduler.model_validate(config.get("scheduler", {"name": "none"}))
    if scheduler.name in ("none", "median"):
        return []
    if folds := num_folds(config):
        return list(range(1, folds))
    return scheduler.rungs(config["train"]["epochs"])


class Family(NamedTuple):
    """The trials of one model.

    Attributes:
        model: Name of the model.
        values: Values of the trials that ran to their end, best first.
        stopped: Values that others had reached when they were stopped, best first.
        trials: Number of all its trials.
    """

    model: str
    values: tuple[float, ...]
    stopped: tuple[float, ...]
    trials: int

    @property
    def median(self) -> float | None:
        """Median of the trials that ran to their end."""
        return median(self.values) if self.values else None


def families(study: Summary) -> list[Family]:
    """Return the models of a search, the one with the best trial first."""
    found = []
    for model in dict.fromkeys(row.model for row in (*study.ranked, *study.trials)):
        rows = [row for row in study.ranked if row.model == model]
        whole, stopped = (
            sorted(
                (study.value(row) for row in rows if _is_whole(row) is wanted),
                reverse=study.maximise,
            )
            for wanted in (True, False)
        )
        number = sum(row.model == model for row in study.trials)
        found.append(Family(model, tuple(whole), tuple(stopped), number))
    return found


def _is_whole(row: TrialRow) -> bool:
    return row.status is State.COMPLETED and not row.is_partial


def first_whole(study: Summary) -> TrialRow | None:
    """Return the first configuration of the search that ran to its end."""
    rows = sorted(study.ranked, key=lambda row: row.ordinal)
    return next((row for row in rows if _is_whole(row)), None)


def gain(study: Summary) -> Comparison | None:
    """Return what was chosen beside the default configuration, else the first; None if unknown.

    The test tracks decide before those of validation, on which the winner was chosen.
    """
    paired = study.confirm.paired if study.confirm else ()
    known = [study.explanation.comparison, *(one for one in paired if one.of == "default")]
    found = [one for one in known if one is not None]
    return next(iter(sorted(found, key=lambda one: one.of != "default")), None)


def gain_in_words(study: Summary) -> tuple[str, str]:
    """Return what tuning bought: a short figure, and what it means."""
    first, winner = first_whole(study), study.winner
    if winner is None:
        return "none", "no configuration has ended with a score"
    if len(study.trials) < 2:
        return "none", "a single configuration was tried"
    if study.confirm and study.confirm.default_won:
        return "none", (
            f"the default configuration ({study.confirm.trial_id}) is the winner: with new seeds, "
            "nothing that the search found ranks above it"
        )
    if (found := gain(study)) is not None:
        return f"{found.difference:+.3f}", (
            f"from {found.before:.3f} with {found.title} ({found.first}) to {found.after:.3f}: "
            f"{found.place}; {found.verdict}"
        )
    if first is None or first.trial_id == winner.trial_id:
        return "none", (
            f"the first of {len(study.trials)} configurations that ran to its end is the winner"
        )
    before = study.value(first)
    after, of = study.value(winner), "in the search, so the winner's is optimistic"
    if study.confirm:
        after, of = study.confirm.mean, "the winner's with new seeds"
    tracks = study.ranking.num_tracks
    noise = "how much of it is noise is unknown"
    if tracks and study.maximise:
        low, high = uncertainty.exact_interval(after, tracks, ONE_STANDARD_ERROR)
        noise = f"one standard error of a score on {tracks} tracks is {(high - low) / 2:.3f}"
    return f"{after - before:+.3f}", (
        f"from {before:.3f} with the first configuration ({first.trial_id}) to {after:.3f}: "
        f"{study.metric}, {of}; {noise}"
    )
