"""The leaderboard of a study: all its trials in order, and ``leaderboard.csv``."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, NamedTuple

from pipelines.plain_text import for_cell, printable

if TYPE_CHECKING:
    from tuner.ledger.summary import Summary
    from tuner.ledger.trial_rows import TrialRow


class Place(NamedTuple):
    """One line of the leaderboard.

    Attributes:
        rank: Place in the search, from 1; None without a value, and in other stages.
        trial: The trial.
        value: Its value of the study's metric; None if it failed, did not finish, or has learned
            from the validation tracks.
    """

    rank: int | None
    trial: TrialRow
    value: float | None


def leaderboard(summary: Summary) -> list[Place]:
    """Return the search trials, best first, then those without a value, then the other stages."""
    ranked = [(n, row) for n, row in enumerate(summary.ranked, start=1)]
    shown = {row.trial_id for row in summary.ranked}
    others = [row for row in summary.trials if row.trial_id not in shown]
    places = [*ranked, *((None, row) for row in (*others, *summary.repeats))]
    return [
        Place(rank, row, None if row.has_learned_val else row.value(summary.metric))
        for rank, row in places
    ]


def as_csv(summary: Summary) -> str:
    """Return the leaderboard as CSV that a spreadsheet opens without running any of it."""
    places = leaderboard(summary)
    # The model has a column of its own.
    names = sorted({name for place in places for name in place.trial.read_params} - {"model"})
    costs = dict.fromkeys(name for place in places for name in place.trial.costs)
    head = (
        "rank", "stage", "trial_id", "repeats", "model", "seed", "status", summary.metric,
        *costs, "best_epoch", "epochs", "folds", *names, "error",
    )  # fmt: skip
    rows = [
        (
            rank, trial.stage, trial.trial_id, trial.parent_trial, trial.model, trial.seed,
            trial.status, value, *map(trial.costs.get, costs), trial.best_epoch,
            *(len(trial.history) if trial.unit == unit else None for unit in ("epoch", "fold")),
            *(trial.read_params.get(name) for name in names),
            printable(trial.error or trial.note or ""),
        )
        for rank, trial, value in places
    ]  # fmt: skip
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([for_cell(cell) for cell in row] for row in (head, *rows))
    return out.getvalue()
