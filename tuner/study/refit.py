"""After the winner is named: train it once more, on training and validation tracks together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.study.search import run_stage
from tuner.trials.plan import ListSource, Proposal

if TYPE_CHECKING:
    from tuner.ledger.selection import TrialRow
    from tuner.study.context import Context


def refit_winner(study: Context) -> None:
    """Train the winning run's configuration again with its seed, when the space asks for it.

    Nothing is chosen any more, so validation tracks are free to learn from; the weights of the
    last epoch are kept. A run that fails, or that answers the tracks it has learned from worse
    than the winner did, leaves the winner of the confirmation in its place. One that failed
    before the test is tried again by the next run of the study, as after a full disk.

    Raises:
        PipelineError: a disk is full.
    """
    if not study.space.template.confirm.refit:
        return
    winner = winning_run(study)
    known = study.rows().get(refit_id(winner))
    if study.ledger.last("test") or (known and known.status not in ("running", "failed")):
        return
    train = winner.experiment.train.model_copy(update={"keep": "last"})
    experiment = winner.experiment.model_copy(update={"train": train})
    spec = study.spec(refit_id(winner), "final", winner.seed, experiment)
    again = Proposal(
        spec, 0, winner.params, parent_trial=winner.trial_id, recorded=known is not None
    )
    run_stage(study, ListSource([again]), "final", 1, None)
    row = study.rows()[refit_id(winner)]
    if is_sound(study, row, winner):
        text = "the winner has learned from training and validation tracks together"
    elif row.error:
        text = f"failed, the winner stays as it was confirmed: {row.error}"
    else:
        text = "worse than the winner on tracks that it has learned from; the winner stays"
    study.progress.say(f"final fit: {text}")


def is_sound(study: Context, refitted: TrialRow, winner: TrialRow) -> bool:
    """Whether a final fit ended well: it knows the validation tracks, and answers them better."""
    reached, before = refitted.value(study.metric), winner.value(study.metric)
    if reached is None or before is None:
        return False
    return reached >= before if study.maximise else reached <= before


def winning_run(study: Context) -> TrialRow:
    """The confirmation run that won."""
    return study.rows()[study.required("confirmed")["winner"]["run_trial_id"]]


def final_run(study: Context) -> TrialRow:
    """The run whose weights are tested and registered."""
    winner = winning_run(study)
    refitted = study.rows().get(refit_id(winner))
    return refitted if refitted and is_sound(study, refitted, winner) else winner


def refit_id(winner: TrialRow) -> str:
    """Name of the run that repeats a confirmation run on more tracks."""
    return f"refit-{winner.trial_id}"
