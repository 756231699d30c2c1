"""Second stage: try configurations and stop the weak ones early."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.errors import StudyError
from tuner.ledger import selection
from tuner.trials.plan import Proposal, Queue
from tuner.trials.samplers import build_sampler, num_trials

if TYPE_CHECKING:
    from tuner.config import Search
    from tuner.study.context import Context


def search_space(study: Context) -> None:
    """Run the trials that the search has not finished yet.

    Raises:
        StudyError: No trial succeeded.
        UserError: A disk is full.
    """
    if study.ledger.last("searched"):
        return
    search = study.space.template.search
    rows = list(study.rows("search").values())
    if rows and not selection.leaderboard(rows, study.metric, study.maximise):
        # If every trial failed, as on a full disk or a broken node, run them all again.
        for row in rows:
            row.status = "running"
    wanted = num_trials(study.space)
    if wanted < search.trials:
        study.progress.say(
            f"the space has {wanted} configuration(s); {search.trials} trials were requested"
        )
    unfinished = [row for row in rows if row.status == "running"]
    missing = wanted - (len(rows) - len(unfinished))
    if missing > 0:
        again = [
            Proposal(
                row.trial_id, "search", row.seed, row.experiment, row.ordinal, row.params,
                recorded=True,
            )
            for row in unfinished
        ]  # fmt: skip
        proposer = Queue(again, then=build_sampler(study.space, rows))
        study.run_stage("search", proposer, missing, _remaining_budget(study, search))
    if not selection.leaderboard(study.rows().values(), study.metric, study.maximise):
        errors = [row.error for row in study.rows().values() if row.error]
        reason = (
            f"the first error: {errors[0]}"
            if errors
            else "the budget ended before the first trial did"
        )
        raise StudyError(f"no trial succeeded; {reason}")
    # A budget can end a search before its last trial; a resumed study must not search again.
    study.record("searched", trials=len(study.rows()))


def _remaining_budget(study: Context, search: Search) -> float | None:
    """Return the seconds of the search's budget that earlier runs of the study have left."""
    if search.budget_seconds is None:
        return None
    seconds = (study.ledger.last("study_end") or {}).get("seconds", {})
    spent = float(seconds.get("search", 0.0))
    return max(1.0, search.budget_seconds - spent)
