"""What is tested and registered: the winner or a fusion in its place, and their final fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tuner.errors import StudyError
from tuner.ledger.extension import EXTENDED
from tuner.ledger.states import State
from tuner.ledger.trial_rows import FUSION, REFIT
from tuner.study.stages import winning_run
from tuner.trials.plan import Proposal, queue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tuner.ledger.trial_rows import TrialRow
    from tuner.study.context import Context


class FinalModel(NamedTuple):
    """What is tested and registered.

    Attributes:
        trial_id: The trial that it belongs to.
        rows: The trained trials whose predictions are averaged; one, unless it is a fusion.
        weights: Their weights.
    """

    trial_id: str
    rows: tuple[TrialRow, ...]
    weights: tuple[float, ...]

    @property
    def is_fusion(self) -> bool:
        """True if several models are averaged."""
        return len(self.rows) > 1


def final_model(study: Context) -> FinalModel:
    """Return the fusion if it was chosen, else the winner; their final fits where they have one.

    Raises:
        StudyError: A final fit of a cross-validation has failed.
    """
    rows, weights = chosen(study)
    fitted = tuple(final_run(study, row) for row in rows)
    if len(rows) == 1:
        return FinalModel(fitted[0].trial_id, fitted, weights)
    extensions = len(list(study.ledger.records(EXTENDED)))  # each may choose another fusion
    return FinalModel(f"{FUSION}-{extensions}" if extensions else FUSION, fitted, weights)


def chosen(study: Context) -> tuple[list[TrialRow], tuple[float, ...]]:
    """Return the trials that were chosen on validation, and their weights."""
    fused = study.ledger.last("fused")
    if not (fused and fused["chosen"]):
        return [winning_run(study)], (1.0,)
    rows, members = study.rows(), fused["members"]
    return [rows[one["trial_id"]] for one in members], tuple(one["weight"] for one in members)


def final_run(study: Context, row: TrialRow) -> TrialRow:
    """Return the run whose weights stand for a chosen trial: its final fit, or itself.

    Raises:
        StudyError: A trial of a cross-validation, whose models each lack a fold, has no final fit.
    """
    fitted = study.rows().get(REFIT + row.trial_id)
    if fitted and _succeeded(study, fitted, row):
        return fitted
    if study.space.template.data.num_folds:
        reason = fitted.error if fitted and fitted.error else "it did not finish"
        raise StudyError(f"the final fit of {row.trial_id} failed: {reason}")
    return row


def _succeeded(study: Context, fitted: TrialRow, row: TrialRow) -> bool:
    """Return True if a final fit predicts the validation tracks at least as well as the trial.

    It was trained on these tracks, so a worse score shows that something went wrong. After a
    cross-validation nothing else can be tested.
    """
    after, before = fitted.value(study.metric), row.value(study.metric)
    if after is None or before is None or fitted.status is not State.COMPLETED:
        return False
    if study.space.template.data.num_folds:
        return True
    return after >= before if study.maximise else after <= before


def fit_finally(study: Context) -> None:
    """Train what was chosen again on training and validation tracks together.

    Done if the space asks for it and its limits hold it, and always after a cross-validation.
    Nothing is selected after this, so the validation tracks may be used for training; the weights
    of the last epoch are kept. Without folds, if the run fails or predicts the tracks that it was
    trained on worse than the winner did, the confirmed winner stays. A run that failed before the
    test is tried again when the study resumes, for example after a full disk.

    Raises:
        StudyError: A final fit of a cross-validation failed.
        UserError: A disk is full.
    """
    template, planned = study.space.template, study.ledger.last("confirming") or {}
    is_wanted = template.confirm.refit and planned.get("final", True)
    if not (is_wanted or template.data.num_folds) or study.ledger.last("test"):
        return
    rows, _ = chosen(study)
    if missing := list(_missing_fits(study, rows)):
        study.run_stage("final", queue(missing), len(missing), known=missing)
        for row in rows:
            study.terminal.say(f"final fit: {_in_words(study, row)}")


def _missing_fits(study: Context, rows: list[TrialRow]) -> Iterator[Proposal]:
    """Propose the final fits that have not succeeded yet, with the seeds of their trials."""
    for ordinal, row in enumerate(rows):
        known = study.rows().get(REFIT + row.trial_id)
        # Nothing stops a final fit early but a disk that is full.
        if known is None or known.status is not State.COMPLETED:
            train = row.experiment.train.model_copy(update={"keep": "last"})
            experiment = row.experiment.model_copy(update={"train": train})
            yield Proposal(
                REFIT + row.trial_id, "final", row.seed, experiment, ordinal, row.params,
                parent_trial=row.trial_id,
            )  # fmt: skip


def _in_words(study: Context, row: TrialRow) -> str:
    fitted = study.rows()[REFIT + row.trial_id]
    if final_run(study, row) is not row:
        return f"{row.trial_id} was trained on training and validation tracks together"
    if fitted.error or fitted.value(study.metric) is None:
        return f"failed, the confirmed winner stays: {fitted.error or 'it did not finish'}"
    return "worse than the winner on tracks that it was trained on; the winner stays"
