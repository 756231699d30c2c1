"""The stages that choose: the search, and the confirmation of the best configurations."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.errors import StudyError
from tuner.ledger import candidates, selection
from tuner.ledger.extension import EXTENDED, changed_at
from tuner.ledger.states import State
from tuner.study.confirmation_plan import fitting, missing_runs
from tuner.study.default_runs import default_configuration
from tuner.study.paired import HARD_METRICS, TRACK_METRICS, compare_winner
from tuner.study.warm_start import earlier_trials
from tuner.training import uncertainty
from tuner.training.costs import excess
from tuner.trials import patience
from tuner.trials.limits import Limits, in_force
from tuner.trials.plan import Proposal, queue
from tuner.trials.proposals import Proposals
from tuner.trials.reserve import Reserve

if TYPE_CHECKING:
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
    extended = study.ledger.last(EXTENDED)
    wanted: float = extended["trials"] or math.inf if extended else study.space.num_trials
    if not extended and wanted < search.trials:
        study.terminal.say(
            f"the space has {wanted} configuration(s); {search.trials} trials were requested"
        )
    again = [row for row in rows if row.is_unfinished and not row.is_left_out]
    again = again or _failed(study, rows)
    again += _cut_off(rows) if extended else []
    others = [row for row in rows if row.ordinal < changed_at(study.ledger.records())]
    source = Proposals(study.space, wanted, earlier_trials(study.space, study.ledger), others)

    def is_out(trials: Iterable[TrialRow]) -> bool:
        began = extended["began"] if extended else 0
        return patience.is_out(trials, study.ranking, search, began)

    def next_trial(trials: Sequence[TrialRow]) -> Proposal | None:
        return None if is_out(trials) else source.next(trials)

    # A killed run leaves no other sign of when it began.
    study.record("searching", again=[row.trial_id for row in again])
    missing = wanted - len(rows) + len(again)
    unfinished = [*map(Proposal.again, again)]
    study.run_stage("search", next_trial, missing, limits_of(study), again=unfinished)
    rows = sorted(study.rows("search").values(), key=lambda row: row.ordinal)
    if not selection.leaderboard(rows, study.ranking):
        raise StudyError(_why_none(rows))
    reason = f"{wanted} trials have run"
    if ended := study.ledger.last("budget_ended"):
        reason = ended["reason"]
    elif is_out(rows):
        reason = f"{search.patience} trials in a row brought nothing clearly better"
    study.terminal.say(f"search: ended, {reason}")
    # A budget can end a search before its last trial; a resumed study must not search again.
    study.record("searched", trials=len(study.rows()), reason=reason)


def _why_none(rows: Iterable[TrialRow]) -> str:
    """Return why a search has no trial to rank."""
    if errors := [row.error for row in rows if row.error]:
        return f"no trial succeeded; the first error: {errors[0]}"
    broken = [row for row in rows if row.breaks]
    if not broken:
        return (
            "no trial succeeded; the budget ended before the first trial did; with a longer one, "
            "it goes on"
        )
    nearest = min(broken, key=lambda row: excess(row.costs, row.at_most))
    return (
        f"none of {len(broken)} trials keeps search.at_most; the nearest is {nearest.trial_id}: "
        f"{nearest.breaks}; write a higher limit, or a space with smaller models, and another "
        "--name"
    )


def limits_of(study: Context) -> Limits:
    """Return the limits of a study, with what it has cost so far."""
    template = study.space.template
    newest = {kind: one for kind in (EXTENDED,) if (one := study.ledger.last(kind))}
    return Limits(
        in_force(template.search, newest), study.ledger.records(), template.resources.devices(),
        Reserve(study.space), study.clock,
    )  # fmt: skip


def _failed(study: Context, rows: list[TrialRow]) -> list[TrialRow]:
    """Return all trials of a search in which every one failed, as on a broken node; else none."""
    ended = study.ledger.last("study_end")
    has_failed = ended is not None and ended["status"] == State.FAILED
    if not has_failed or selection.leaderboard(rows, study.ranking):
        return []
    return [row for row in rows if not (row.breaks or row.is_left_out)]


def _cut_off(rows: list[TrialRow]) -> list[TrialRow]:
    """Return the trials that the end of a budget has cut off, which an extension goes on with."""
    return [
        row
        for row in rows
        if row.status is State.STOPPED_EARLY
        and not (row.must_stop or row.breaks or row.is_left_out)
        and len(row.history) < row.experiment.num_reports
    ]


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
    top, seeds, others, default = _within_limits(study, top, others)
    before = _confirmed_before(study)
    ids = {row.trial_id for row in top} | before
    repeated = top if default is None or default.trial_id in ids else [*top, default]
    wanted = [*missing_runs(repeated, seeds, rows), *missing_runs(others, 1, rows)]
    if wanted:
        study.run_stage("confirm", queue(wanted), len(wanted), known=wanted)
    found = candidates.candidates(study.rows().values(), study.ranking)
    # What was trained for a fusion alone has a single seed, and was behind in the search.
    able = {row.trial_id for row in repeated} | before
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

    They were stopped before their last fold or epoch, or validated on tracks of their own. Those
    that are behind by more than two standard errors would hardly be given a weight.
    """
    best = {row.model: row for row in reversed(ranked)}
    models = {row.model for row in top}
    others = [row for model, row in best.items() if model not in models]
    highest, template = top[0].reached(study.metric), study.space.template
    folds = template.data.num_folds
    return [
        row
        for row in others
        if (row.status is State.STOPPED_EARLY or template.search.reshuffle)
        and row.reached(study.metric)
        >= study.ranking.bar(
            highest, len(row.history) / folds if folds else 1.0, TWO_STANDARD_ERRORS
        )
    ]


def _confirmed_before(study: Context) -> set[str]:
    """Return the configurations that were confirmed before an extension of the study."""
    found = {one["trial_id"] for r in study.ledger.records("confirmed") for one in r["top"]}
    of_fusions = {name for r in study.ledger.records("confirming") for name in r["for_fusion"]}
    return found - of_fusions


def _within_limits(
    study: Context, top: list[TrialRow], others: list[TrialRow]
) -> tuple[list[TrialRow], int, list[TrialRow], TrialRow | None]:
    """Return what is confirmed, with how many seeds, and which trials run for a fusion alone.

    So much that the study should end within its limits, but at least one run. The decision is
    recorded before it is acted on, so a study that resumes keeps to it.
    """
    default = default_configuration(study)
    decided = study.ledger.last("confirming")
    if decided is None:
        decided = study.record(
            "confirming", **fitting(study, limits_of(study), top, others, default)
        )
    for sentence in (*decided.get("less", ()), *decided["left_out"]):
        study.terminal.say(f"confirmation: {sentence}")
    if default and default.trial_id != decided.get("default"):
        default = None
    plan = study.space.template.confirm  # earlier versions always kept to it
    top = top[: decided.get("top", plan.top)]
    chosen = [row for row in others if row.trial_id in decided["for_fusion"]]
    return top, decided.get("seeds", plan.seeds), chosen, default


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
