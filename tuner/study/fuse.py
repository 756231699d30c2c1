"""Stage before the test: decide whether a fusion of several models takes the winner's place."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tuner.errors import StudyError
from tuner.ledger import selection
from tuner.study import mixing
from tuner.study.stages import TRACK_METRICS, winning_run
from tuner.training import metrics
from tuner.training.exported import MAX_MEMBERS

if TYPE_CHECKING:
    from tuner.ledger.selection import TrialRow
    from tuner.study.context import Context
    from tuner.study.mixing import Matched

# Share of the resamplings in which a fusion must score higher than the winner. A fusion costs as
# much as all its members, so it is not worth a gain that other tracks would probably not show.
NEEDED_SHARE = 0.9


def fuse_best(study: Context) -> None:
    """Record whether a fusion is better than the winner, if the space asks for it."""
    asked = study.space.template.confirm.fuse
    if not asked or study.ledger.last("fused") or study.ledger.last("test"):
        return
    members, left_out = _that_fit_together(to_be_fused(study), winning_run(study))
    study.terminal.status(f"weighing a fusion of {len(members)} models")
    found = {"chosen": False, "members": [], **_decision(study, members)}
    found["reason"] = "; ".join([found["reason"], *left_out])
    study.record("fused", **found)
    verdict = "confirmed in place of the winner" if found["chosen"] else "the winner stays"
    study.terminal.say(f"fusion: {verdict}, {found['reason']}")


def confirmed_runs(study: Context) -> list[TrialRow]:
    """Return the best run of each confirmed configuration, the winner first."""
    found = selection.candidates(study.rows().values(), study.metric, study.maximise)
    return [selection.best_run(one, study.metric, study.maximise) for one in found]


def to_be_fused(study: Context) -> list[TrialRow]:
    """Return the confirmed runs, the winner first, and the best trial of each other family."""
    rows = confirmed_runs(study)
    for row in selection.leaderboard(study.rows().values(), study.metric, study.maximise):
        # A trial that was stopped after some folds cannot predict the tracks of the others.
        if not row.is_partial and row.model not in {one.model for one in rows}:
            rows.append(row)
    return rows


def matched(
    study: Context, rows: list[TrialRow], split: str, vote: str = "probabilities"
) -> Matched:
    """Return the predictions of trials on the tracks of a split that all of them know.

    Raises:
        StudyError: A trial cannot predict, or the trials do not belong together.
    """
    found = study.predictions(rows, split)
    return mixing.match_tracks(
        [one.track_ids for one in found],
        [one.truth for one in found],
        [getattr(one, vote) for one in found],
    )


def _that_fit_together(rows: list[TrialRow], winner: TrialRow) -> tuple[list[TrialRow], list[str]]:
    """Return the trials that one program can serve together, and why others are left out."""
    members: list[TrialRow] = []
    left_out: list[str] = []
    of_winner = _misfit(winner, winner)
    for row in rows:
        reason = of_winner or _misfit(row, winner)
        if reason is None and len(members) == MAX_MEMBERS:
            reason = f"a fusion has at most {MAX_MEMBERS} members"
        if reason is None:
            members.append(row)
        else:
            left_out.append(f"{row.trial_id} ({row.model}) is left out: {reason}")
    return members, left_out


def _misfit(row: TrialRow, winner: TrialRow) -> str | None:
    """Return why a program from clips to probabilities cannot hold both; None if it can."""
    ours, theirs = row.experiment, winner.experiment
    if ours.front_end.row.column == "track":
        return f"{row.model} takes whole tracks, and a fusion is made of models of clips"
    rate, wanted = ours.front_end.sample_rate, theirs.front_end.sample_rate
    if rate != wanted:
        return f"it takes {rate} Hz, the winner {wanted} Hz"
    if ours.data.clip != theirs.data.clip:
        return "its clips are cut in another way than the winner's"
    return None


def _decision(study: Context, members: list[TrialRow]) -> dict[str, Any]:
    """Return the fields of the record that follow from the predictions on validation."""
    if len(members) < 2:
        return {"reason": "fewer than two models can be served by one program"}
    try:
        found = matched(study, members, "val")
    except StudyError as error:
        return {"reason": str(error)}
    num_tracks = len(found.truth)
    if found.num_unknown:
        return {"reason": f"{found.num_unknown} validation tracks are not known to all models"}
    if num_tracks < mixing.FOLDS:
        return {"reason": f"{num_tracks} validation tracks are too few to weigh it"}
    weights = mixing.select_weights(found.probabilities, found.truth).tolist()
    weighed = [
        {"trial_id": row.trial_id, "model": row.model, "weight": weight}
        for row, weight in zip(members, weights, strict=True)
        if weight > 0
    ]
    if len(weighed) < 2:
        return {"reason": f"{weighed[0]['trial_id']} alone has the lowest log loss"}
    name = study.metric.removeprefix("val_") if study.metric in TRACK_METRICS else "f1_macro"
    fused = mixing.out_of_fold(found.probabilities, found.truth)
    compared = mixing.compare(fused, found.probabilities[0], found.truth, metrics.SCORES[name])
    return {
        "chosen": compared.share_better >= NEEDED_SHARE,
        "reason": (
            f"{name} {compared.fusion:.3f} against the winner's {compared.winner:.3f} on "
            f"{num_tracks} validation tracks, higher in {compared.share_better:.1%} of the "
            f"resamplings, where {NEEDED_SHARE:.0%} are needed"
        ),
        "members": weighed,
        "metric": name,
        **asdict(compared),
        "tracks": num_tracks,
        "val": metrics.scores_of(fused, found.truth),
    }
