"""The stages that choose: the search, and the confirmation of the best configurations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tuner.errors import StudyError
from tuner.ledger import candidates, selection
from tuner.ledger.pace import searched_seconds
from tuner.ledger.states import State
from tuner.training import metrics, uncertainty
from tuner.trials.patience import Patience
from tuner.trials.plan import Proposal, Queue
from tuner.trials.samplers import build_sampler, num_trials

if TYPE_CHECKING:
    from tuner.config import Search
    from tuner.ledger.candidates import Candidate
    from tuner.ledger.selection import TrialRow
    from tuner.study.context import Context

TWO_STANDARD_ERRORS = 0.9545
# Intervals over tracks exist for metrics that count tracks: by the soft vote, by the hard one.
TRACK_METRICS = {f"val_{name}": score for name, score in metrics.SCORES.items()}
HARD_METRICS = {
    "val_hard_accuracy": metrics.accuracy, "val_hard_f1_macro": metrics.f1_macro,
}  # fmt: skip


# -- search


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
    if rows and not selection.leaderboard(rows, study.ranking):
        # If every trial failed, as on a full disk or a broken node, run them all again.
        for row in rows:
            row.status = State.RUNNING
    wanted = num_trials(study.space)
    if wanted < search.trials:
        study.terminal.say(
            f"the space has {wanted} configuration(s); {search.trials} trials were requested"
        )
    unfinished = [row for row in rows if row.is_unfinished]
    missing = wanted - (len(rows) - len(unfinished))
    if missing > 0:
        again = [
            Proposal(
                row.trial_id, "search", row.seed, row.experiment, row.ordinal, row.params,
                recorded=True,
            )
            for row in unfinished
        ]  # fmt: skip
        sampler = build_sampler(study.space, rows)
        patience = Patience(sampler, study.ranking, search, rows)
        if again or not patience.is_out:
            budget = _remaining_budget(study, search)
            study.record("searching")  # a killed run leaves no other sign of when it began
            study.run_stage("search", Queue(again, then=patience), missing, budget)
        if patience.is_out:
            study.terminal.say(
                f"search: ended, {search.patience} trials in a row brought nothing clearly better"
            )
    if not selection.leaderboard(study.rows().values(), study.ranking):
        errors = [f"the first error: {row.error}" for row in study.rows().values() if row.error]
        reason = errors[0] if errors else "the budget ended before the first trial did"
        raise StudyError(f"no trial succeeded; {reason}")
    # A budget can end a search before its last trial; a resumed study must not search again.
    study.record("searched", trials=len(study.rows()))


def _remaining_budget(study: Context, search: Search) -> float | None:
    """Return the seconds of the search's budget that earlier runs of the study have left."""
    if search.budget_seconds is None:
        return None
    return max(1.0, search.budget_seconds - searched_seconds(study.ledger.records()))


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
    wanted = [*_missing_runs(top, plan.seeds, rows), *_missing_runs(others, 1, rows)]
    if wanted:
        study.run_stage("confirm", Queue(wanted), len(wanted))
    ids = {row.trial_id for row in top}
    found = candidates.candidates(study.rows().values(), study.ranking)
    # What was trained for a fusion alone has a single seed, and was behind in the search.
    found.sort(key=lambda one: one.trial_id not in ids)
    if not found or found[0].trial_id not in ids:
        raise StudyError("no confirmation run succeeded; the ledger holds the reasons")
    winner = found[0]
    study.record(
        "confirmed",
        seeds=len(winner.values),
        mean=winner.mean,
        ci95=_interval(study, winner),
        top=[{"trial_id": c.trial_id, "values": list(c.values), "mean": c.mean} for c in found],
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


def _distinct(ranked: list[TrialRow]) -> Iterator[TrialRow]:
    """Skip trials that repeat a better one in every setting that their model reads."""
    seen: set[str] = set()
    for row in ranked:
        read = json.dumps(row.experiment.effective_settings(), sort_keys=True)
        if read not in seen:
            seen.add(read)
            yield row


def _for_fusion(study: Context, ranked: list[TrialRow], top: list[TrialRow]) -> list[TrialRow]:
    """Return the best trials of other models that were stopped before their last fold.

    They predict too few tracks to be fused as they are. Those that are behind by more than two
    standard errors would hardly be given a weight.
    """
    best = {row.model: row for row in reversed(ranked)}
    others = [best[model] for model in best.keys() - {row.model for row in top}]
    highest, folds = top[0].reached(study.metric), study.space.template.data.num_folds
    return [
        row
        for row in others
        if row.is_partial
        and row.reached(study.metric)
        >= study.ranking.bar(highest, len(row.history) / folds, TWO_STANDARD_ERRORS)
    ]


def _missing_runs(
    top: list[TrialRow], num_seeds: int, rows: dict[str, TrialRow]
) -> Iterator[Proposal]:
    """Propose the runs of configurations with new seeds that have not ended yet."""
    ordinal = 0
    for row in top:
        for seed in range(row.seed + 1, row.seed + 1 + num_seeds):
            trial_id = f"c{row.ordinal:03d}-s{seed}-{row.trial_id.rsplit('-', 1)[1]}"
            known = rows.get(trial_id)
            # Nothing but a full disk stopped a confirmation run early in earlier versions.
            if known is None or known.is_unfinished or known.status is State.STOPPED_EARLY:
                yield Proposal(
                    trial_id, "confirm", seed, row.experiment, ordinal, row.params,
                    parent_trial=row.trial_id, recorded=known is not None,
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
