"""The stages that choose: the search, and the confirmation of the best configurations."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.build.console import duration
from tuner.errors import StudyError
from tuner.ledger import candidates, selection
from tuner.ledger.spent import spent_seconds
from tuner.ledger.states import State
from tuner.ledger.timing import Timing, course_of, end_of
from tuner.study.default_runs import default_configuration
from tuner.study.paired import HARD_METRICS, TRACK_METRICS, compare_winner
from tuner.training import uncertainty
from tuner.trials.patience import is_out
from tuner.trials.plan import Proposal, queue
from tuner.trials.samplers import propose

if TYPE_CHECKING:
    from tuner.config import Search
    from tuner.ledger.candidates import Candidate
    from tuner.ledger.trial_rows import TrialRow
    from tuner.study.context import Context

TWO_STANDARD_ERRORS = 0.9545


# -- search


def search_space(study: Context) -> None:
    """Run the trials that the search has not finished yet.

    Raises:
        StudyError: No trial succeeded.
        UserError: A disk is full.
    """
    if study.ledger.last("searched"):
        return
    search, rows = study.space.template.search, list(study.rows("search").values())
    wanted = study.space.num_trials
    if wanted < search.trials:
        study.terminal.say(
            f"the space has {wanted} configuration(s); {search.trials} trials were requested"
        )
    again = [row for row in rows if row.is_unfinished] or _failed(study, rows)

    def next_trial(trials: Sequence[TrialRow]) -> Proposal | None:
        return None if is_out(trials, study.ranking, search) else propose(study.space, trials)

    budget = _remaining_budget(study, search)
    # A killed run leaves no other sign of when it began.
    study.record("searching", again=[row.trial_id for row in again])
    missing = wanted - len(rows) + len(again)
    study.run_stage("search", next_trial, missing, budget, again=[*map(Proposal.again, again)])
    if is_out(study.rows("search").values(), study.ranking, search):
        study.terminal.say(
            f"search: ended, {search.patience} trials in a row brought nothing clearly better"
        )
    if not selection.leaderboard(study.rows().values(), study.ranking):
        errors = [f"the first error: {row.error}" for row in study.rows().values() if row.error]
        reason = errors[0] if errors else "the budget ended before the first trial did"
        raise StudyError(f"no trial succeeded; {reason}")
    # A budget can end a search before its last trial; a resumed study must not search again.
    study.record("searched", trials=len(study.rows()))


def _failed(study: Context, rows: list[TrialRow]) -> list[TrialRow]:
    """Return all trials of a search in which every one failed, as on a broken node; else none."""
    ended = study.ledger.last("study_end")
    has_failed = ended is not None and ended["status"] == State.FAILED
    return rows if has_failed and not selection.leaderboard(rows, study.ranking) else []


def _remaining_budget(study: Context, search: Search) -> float | None:
    """Return the seconds of the search's budget that earlier runs of the study have left."""
    if search.budget_seconds is None:
        return None
    ended = study.ledger.last("budget_ended")
    if ended is not None and ended["budget"] == search.budget:
        return 0.0
    return search.budget_seconds - _spent(study)


def _spent(study: Context) -> float:
    return spent_seconds(study.ledger.records())["search"]


# -- confirmation


def confirm_best(study: Context) -> None:
    """Run the missing confirmation runs and record the winner.

    Raises:
        StudyError: No confirmation run succeeded.
        UserError: A disk is full.
    """
    if study.ledger.last("confirmed"):
        return
    plan = study.space.template.confirm
    rows = study.rows()
    ranked = selection.leaderboard(rows.values(), study.ranking)
    top = list(_distinct(ranked))[: plan.top]
    others = _for_fusion(study, ranked, top) if plan.fuse else []
    others, default = _within_budget(study, top, others)
    ids = {row.trial_id for row in top}
    repeated = top if default is None or default.trial_id in ids else [*top, default]
    wanted = [*_missing_runs(repeated, plan.seeds, rows), *_missing_runs(others, 1, rows)]
    if wanted:
        study.run_stage("confirm", queue(wanted), len(wanted), known=wanted)
    found = candidates.candidates(study.rows().values(), study.ranking)
    # What was trained for a fusion alone has a single seed, and was behind in the search.
    able = {row.trial_id for row in repeated}
    found.sort(key=lambda one: one.trial_id not in able)
    if not found or found[0].trial_id not in able:
        raise StudyError("no confirmation run succeeded; the ledger holds the reasons")
    winner = found[0]
    of_default = next((one for one in found if default and one.trial_id == default.trial_id), None)
    compared = None
    if of_default and of_default is not winner and of_default.trial_id not in ids:
        compared = of_default.trial_id
        found.remove(of_default)
    paired = [*compare_winner(study, found, able, of_default)]
    study.record(
        "confirmed",
        seeds=len(winner.values),
        mean=winner.mean,
        ci95=_interval(study, winner),
        top=[_as_recorded(one) for one in found],
        default=of_default and _as_recorded(of_default),
        for_comparison=compared,  # alone: no part of a fusion or a vote
        paired=[one._asdict() for one in paired],
        winner={
            "trial_id": winner.trial_id,
            "run_trial_id": candidates.best_run(winner, study.ranking).trial_id,
        },
    )
    reached = (
        f"mean {study.metric} {winner.mean:.3f} over {len(winner.values)} seeds"
        if len(winner.values) > 1
        else f"{study.metric} {winner.mean:.3f} with another seed"
    )
    study.terminal.say(f"confirmed: {winner.trial_id}, {reached}")
    for one in paired:
        study.terminal.say(
            f"confirmed: {one.difference:+.3f} over {one.title} {one.first}: {one.place}; "
            f"{one.verdict}"
        )


def _as_recorded(one: Candidate) -> dict[str, Any]:
    return {"trial_id": one.trial_id, "values": list(one.values), "mean": one.mean}


def _distinct(ranked: list[TrialRow]) -> Iterator[TrialRow]:
    """Skip trials that repeat a better one in every setting that their model reads."""
    seen: set[str] = set()
    for row in ranked:
        read = json.dumps(row.experiment.effective_settings(), sort_keys=True)
        if read not in seen:
            seen.add(read)
            yield row


def _for_fusion(study: Context, ranked: list[TrialRow], top: list[TrialRow]) -> list[TrialRow]:
    """Return the best trials of other models that cannot be fused as they are.

    They were stopped before their last fold, and predict too few tracks, or validated on tracks of
    their own. Those that are behind by more than two standard errors would hardly be given a
    weight.
    """
    best = {row.model: row for row in reversed(ranked)}
    models = {row.model for row in top}
    others = [row for model, row in best.items() if model not in models]
    highest, template = top[0].reached(study.metric), study.space.template
    folds = template.data.num_folds
    return [
        row
        for row in others
        if (row.is_partial or template.search.reshuffle)
        and row.reached(study.metric)
        >= study.ranking.bar(
            highest, len(row.history) / folds if folds else 1.0, TWO_STANDARD_ERRORS
        )
    ]


def _within_budget(
    study: Context, top: list[TrialRow], others: list[TrialRow]
) -> tuple[list[TrialRow], TrialRow | None]:
    """Return the trials for a fusion, and the default configuration, that fit in the budget.

    What the winner's score needs always runs. The decision is recorded before it is acted on, so
    a study that resumes keeps to it.
    """
    default = default_configuration(study)
    decided = study.ledger.last("confirming")
    if decided is None:
        decided = study.record("confirming", **_fitting(study, top, others, default))
    for sentence in decided["left_out"]:
        study.terminal.say(f"fusion: {sentence}")
    if reason := decided.get("default_left_out"):
        study.terminal.say(reason)
    if default and default.trial_id != decided.get("default"):
        default = None
    return [row for row in others if row.trial_id in decided["for_fusion"]], default


def _fitting(
    study: Context, top: list[TrialRow], others: list[TrialRow], default: TrialRow | None
) -> dict[str, Any]:
    """Compare the time that the ledger predicts with what the search has left of its budget."""
    search, timing = study.space.template.search, Timing()
    for record in study.ledger.records():
        timing.take(record)
    left = math.inf
    if search.budget_seconds is not None:
        left = max(0.0, search.budget_seconds - _spent(study))
    seeds = study.space.template.confirm.seeds
    runs = [row for row in top for _ in range(seeds)]

    def excess(more: list[TrialRow], of: str) -> str:
        """Add runs if they fit, else say why not."""
        courses = [course_of(one.recorded_config, "confirm") for one in (*runs, *more)]
        seconds = end_of((timing.expected(one) or 0.0 for one in courses), timing.at_once)
        if seconds <= left:
            runs.extend(more)
            return ""
        return (
            f"is left out: with {of} the confirmation would take about {duration(seconds)}, and "
            f"the search has left {duration(left)} of its budget of {search.budget}"
        )

    run = "its run over all folds" if study.space.template.data.num_folds else "its run"
    found = [(row, excess([row], run)) for row in others]
    not_default = ""
    if default and default.trial_id not in {row.trial_id for row in top}:
        not_default = excess([default] * seeds, "its runs")
    return {
        "for_fusion": [row.trial_id for row, why in found if not why],
        "left_out": [f"{row.trial_id} ({row.model}) {why}" for row, why in found if why],
        "default": default.trial_id if default and not not_default else None,
        "default_left_out": not_default and f"the default configuration {not_default}",
    }


def _missing_runs(
    top: list[TrialRow], num_seeds: int, rows: dict[str, TrialRow]
) -> Iterator[Proposal]:
    """Propose the runs of configurations with new seeds that have not ended yet."""
    ordinal = 0
    for row in top:
        for seed in range(row.seed + 1, row.seed + 1 + num_seeds):
            head, _, digest = row.trial_id.rpartition("-")
            head = head if head == "default" else f"c{row.ordinal:03d}"
            trial_id = f"{head}-s{seed}-{digest}"
            known = rows.get(trial_id)
            # Nothing but a full disk stopped a confirmation run early in earlier versions.
            if known is None or known.is_unfinished or known.status is State.STOPPED_EARLY:
                yield Proposal(
                    trial_id, "confirm", seed, row.experiment, ordinal, row.params,
                    parent_trial=row.trial_id,
                )  # fmt: skip
            ordinal += 1


def _interval(study: Context, winner: Candidate) -> list[float] | None:
    """Return the interval over validation tracks of the winner's mean over its seeds."""
    metric = (TRACK_METRICS | HARD_METRICS).get(study.metric)
    if metric is None:
        return None
    runs = study.predictions(list(winner.runs), "val")
    predicted = np.stack([
        one.hard.argmax(1) if study.metric in HARD_METRICS else one.predicted for one in runs
    ])  # fmt: skip
    k = len(study.labels())
    return list(uncertainty.interval(runs[0].truth, predicted, metric, k))


def winning_run(study: Context) -> TrialRow:
    """Return the confirmation run that won."""
    return study.rows()[study.required("confirmed")["winner"]["run_trial_id"]]
