"""Final fit: train the winner once more, on training and validation tracks together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.trials.plan import Proposal, Queue

if TYPE_CHECKING:
    from tuner.ledger.selection import TrialRow
    from tuner.study.context import Context


def refit_winner(study: Context) -> None:
    """Train the winning run's configuration again with its seed, if the space asks for it.

    Nothing is selected after this, so the validation tracks are free for training; the weights of
    the last epoch are kept. If the run fails, or predicts the tracks that it was trained on worse
    than the winner did, the confirmed winner stays. A run that failed before the test is tried
    again when the study resumes, for example after a full disk.

    Raises:
        UserError: A disk is full.
    """
    if not study.space.template.confirm.refit:
        return
    winner = winning_run(study)
    known = study.rows().get(refit_id(winner))
    if study.ledger.last("test") or (known and known.status not in ("running", "failed")):
        return
    train = winner.experiment.train.model_copy(update={"keep": "last"})
    experiment = winner.experiment.model_copy(update={"train": train})
    proposal = Proposal(
        refit_id(winner), "final", winner.seed, experiment, 0, winner.params,
        parent_trial=winner.trial_id, recorded=known is not None,
    )  # fmt: skip
    study.run_stage("final", Queue([proposal]), 1)
    row = study.rows()[refit_id(winner)]
    if is_sound(study, row, winner):
        text = "the winner was trained on training and validation tracks together"
    elif row.error:
        text = f"failed, the confirmed winner stays: {row.error}"
    else:
        text = "worse than the winner on tracks that it was trained on; the winner stays"
    study.progress.say(f"final fit: {text}")


def is_sound(study: Context, refitted: TrialRow, winner: TrialRow) -> bool:
    """Return True if a final fit succeeded and predicts the validation tracks as well or better.

    It was trained on these tracks, so a worse score shows that something went wrong.
    """
    reached, before = refitted.value(study.metric), winner.value(study.metric)
    if reached is None or before is None:
        return False
    return reached >= before if study.maximise else reached <= before


def winning_run(study: Context) -> TrialRow:
    """Return the confirmation run that won."""
    return study.rows()[study.required("confirmed")["winner"]["run_trial_id"]]


def final_run(study: Context) -> TrialRow:
    """Return the run whose weights are tested and registered."""
    winner = winning_run(study)
    refitted = study.rows().get(refit_id(winner))
    return refitted if refitted and is_sound(study, refitted, winner) else winner


def refit_id(winner: TrialRow) -> str:
    """Return the name of the run that repeats a confirmation run on more tracks."""
    return f"refit-{winner.trial_id}"
