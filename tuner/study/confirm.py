"""Third stage: train the best configurations again over several seeds, name the winner."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from tuner.config import what_is_read
from tuner.errors import StudyError
from tuner.ledger import selection
from tuner.study.predictions import answers_of
from tuner.study.search import run_stage
from tuner.training import metrics
from tuner.trials.plan import ListSource, Proposal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tuner.ledger.selection import Candidate, TrialRow
    from tuner.study.context import Context

# Intervals over tracks exist for metrics that count tracks: by the soft vote, by the hard one.
TRACK_METRICS = {f"val_{name}": score for name, score in metrics.SCORES.items()}
HARD_METRICS = {
    "val_hard_accuracy": metrics.accuracy, "val_hard_f1_macro": metrics.f1_macro,
}  # fmt: skip


def confirm_best(study: Context) -> None:
    """Run the missing confirmation runs and record the winner.

    Raises:
        StudyError: no confirmation run succeeded.
        PipelineError: a disk is full.
    """
    if study.ledger.last("confirmed"):
        return
    plan = study.space.template.confirm
    rows = study.rows()
    ranked = selection.leaderboard(rows.values(), study.metric, study.maximise)
    top = list(_different(ranked))[: plan.top]
    wanted = list(_missing_runs(study, top, rows))
    if wanted:
        run_stage(study, ListSource(wanted), "confirm", len(wanted), None)
    found = selection.candidates(study.rows().values(), study.metric, study.maximise)
    if not found:
        raise StudyError("no confirmation run succeeded; the ledger names the reasons")
    winner = found[0]
    study.record(
        "confirmed",
        seeds=plan.seeds,
        mean=winner.mean,
        ci95=_interval(study, winner),
        top=[{"trial_id": c.trial_id, "values": list(c.values), "mean": c.mean} for c in found],
        winner={
            "trial_id": winner.trial_id,
            "run_trial_id": selection.best_run(winner, study.metric, study.maximise).trial_id,
        },
    )
    reached = (
        f"mean {study.metric} {winner.mean:.3f} over {len(winner.values)} seeds"
        if len(winner.values) > 1
        else f"{study.metric} {winner.mean:.3f} with another seed"
    )
    study.progress.say(f"confirmed: {winner.trial_id}, {reached}")


def _different(ranked: list[TrialRow]) -> Iterator[TrialRow]:
    """The trials without those that repeat a better one in all that their model reads."""
    seen: set[str] = set()
    for row in ranked:
        read = json.dumps(what_is_read(row.experiment), sort_keys=True)
        if read not in seen:
            seen.add(read)
            yield row


def _missing_runs(
    study: Context, top: list[TrialRow], rows: dict[str, TrialRow]
) -> Iterator[Proposal]:
    """The runs of the best configurations that have not ended yet."""
    ordinal = 0
    for row in top:
        for seed in range(row.seed + 1, row.seed + 1 + study.space.template.confirm.seeds):
            trial_id = f"c{row.ordinal:03d}-s{seed}-{row.trial_id.rsplit('-', 1)[1]}"
            known = rows.get(trial_id)
            if known is None or known.status == "running":
                spec = study.spec(trial_id, "confirm", seed, row.experiment)
                yield Proposal(
                    spec,
                    ordinal,
                    row.params,
                    parent_trial=row.trial_id,
                    recorded=known is not None,
                )
            ordinal += 1


def _interval(study: Context, winner: Candidate) -> list[float] | None:
    """Interval over validation tracks of the winner's mean over its seeds."""
    metric = (TRACK_METRICS | HARD_METRICS).get(study.metric)
    if metric is None:
        return None
    answers = answers_of(study, list(winner.runs), "val")
    predicted = np.stack([
        answer.hard.argmax(1) if study.metric in HARD_METRICS else answer.predicted
        for answer in answers
    ])  # fmt: skip
    k = len(study.labels())
    return list(metrics.bootstrap_interval(answers[0].truth, predicted, metric, k))
