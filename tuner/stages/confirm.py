"""Third stage: train the best configurations again over several seeds, name the winner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tuner import metrics, selection
from tuner.errors import StudyError
from tuner.plan import Proposal
from tuner.stages.search import run_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tuner.context import Context
    from tuner.selection import Candidate, TrialRow

# Intervals over tracks exist for metrics that count tracks.
TRACK_METRICS = {"val_f1_macro": metrics.f1_macro, "val_accuracy": metrics.accuracy}


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
    top = selection.leaderboard(rows.values(), study.metric, study.maximise)[: plan.top]
    wanted = list(_missing_runs(study, top, rows))
    if wanted:
        run_stage(study, _ListSource(wanted), "confirm", len(wanted), None)
    ranked = selection.candidates(study.rows().values(), study.metric, study.maximise)
    if not ranked:
        raise StudyError("no confirmation run succeeded; the ledger names the reasons")
    winner = ranked[0]
    study.record(
        "confirmed",
        seeds=plan.seeds,
        mean=winner.mean,
        ci95=_interval(study, winner),
        top=[{"trial_id": c.trial_id, "values": list(c.values), "mean": c.mean} for c in ranked],
        winner={
            "trial_id": winner.trial_id,
            "run_trial_id": selection.best_run(winner, study.metric, study.maximise).trial_id,
        },
    )
    study.progress.say(
        f"confirmed: {winner.trial_id}, mean {study.metric} {winner.mean:.3f} "
        f"over {len(winner.values)} seeds"
    )


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
                spec = study.spec(trial_id, "confirm", seed, row.config)
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
    metric = TRACK_METRICS.get(study.metric)
    if metric is None:
        return None
    answers = study.predict(list(winner.runs), "val")
    predicted = np.stack([answer.predicted for answer in answers])
    k = len(study.labels())
    return list(metrics.bootstrap_interval(answers[0].truth, predicted, metric, k))


class _ListSource:
    """A fixed list of runs."""

    def __init__(self, wanted: list[Proposal]) -> None:
        self._wanted = iter(wanted)

    def next(self) -> Proposal | None:
        """The next run."""
        return next(self._wanted, None)

    def ended(self, proposal: Proposal, value: float | None) -> None:
        """Nothing depends on it."""
