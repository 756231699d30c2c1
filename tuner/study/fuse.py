"""Stage before the test: decide whether a fusion of several models takes the winner's place."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from pipelines.features.resampling import MAX_FILTER_VALUES, filter_shape
from tuner.errors import StudyError
from tuner.ledger import candidates, selection
from tuner.ledger.confirmation import Fusion
from tuner.study import mixing
from tuner.study.paired import TRACK_METRICS
from tuner.training import metrics
from tuner.training.exported import MAX_MEMBERS, MAX_RATES
from tuner.trials.predictions import Predictions

if TYPE_CHECKING:
    from tuner.ledger.trial_rows import TrialRow
    from tuner.study.context import Context
    from tuner.study.final import FinalModel
    from tuner.study.mixing import Matched

# Share of the resamplings in which a fusion must score higher than the winner. A fusion costs as
# much as all its members, so it is not worth a gain that other tracks would probably not show.
NEEDED_SHARE = 0.9


def fuse_best(study: Context) -> None:
    """Record whether a fusion is better than the winner, if the space asks for it."""
    asked = study.space.template.confirm.fuse
    if not asked or study.ledger.last("fused") or study.ledger.last("test"):
        return
    members, left_out = _that_fit_together(to_be_fused(study))
    study.terminal.status(f"weighing a fusion of {len(members)} models")
    found = _decision(study, members)
    unconfirmed = (study.ledger.last("confirming") or {}).get("left_out", [])
    found = replace(found, reason="; ".join([found.reason, *unconfirmed, *left_out]))
    study.record("fused", **asdict(found))
    verdict = "confirmed in place of the winner" if found.chosen else "the winner stays"
    study.terminal.say(f"fusion: {verdict}, {found.reason}")


def confirmed_runs(study: Context) -> list[TrialRow]:
    """Return the best run of each confirmed configuration, the winner first."""
    confirmed = study.required("confirmed")
    winner, compared = confirmed["winner"]["trial_id"], confirmed.get("for_comparison")
    found = candidates.candidates(study.rows().values(), study.ranking)
    found = [one for one in found if one.trial_id != compared]
    found.sort(key=lambda one: one.trial_id != winner)
    return [candidates.best_run(one, study.ranking) for one in found]


def to_be_fused(study: Context) -> list[TrialRow]:
    """Return the confirmed runs, the winner first, and the best trial of each other family."""
    rows = confirmed_runs(study)
    if study.space.template.search.reshuffle:  # other trials have learned from validation tracks
        return rows
    for row in selection.leaderboard(study.rows().values(), study.ranking):
        # A trial that was stopped after some folds cannot predict the tracks of the others.
        if not row.is_partial and row.model not in {one.model for one in rows}:
            rows.append(row)
    return rows


def matched(
    study: Context,
    rows: list[TrialRow],
    split: str,
    vote: str = "probabilities",
    temperature: float = 1.0,
) -> Matched:
    """Return the predictions of trials on the tracks of a split that all of them know.

    Raises:
        StudyError: A trial cannot predict, or the trials do not belong together.
    """
    found = [one.at(temperature) for one in study.predictions(rows, split)]
    return mixing.match_tracks(
        [one.track_ids for one in found],
        [one.truth for one in found],
        [getattr(one, vote) for one in found],
    )


def predict(
    study: Context, model: FinalModel, split: str, temperature: float = 1.0
) -> Predictions:
    """Predict a split with the model that is tested and registered, at a temperature.

    A fusion's vote for a track is the weighted mean of its members' votes, soft or hard.

    Raises:
        StudyError: A trial cannot predict, or the trials do not belong together.
    """
    rows = list(model.rows)
    if not model.is_fusion:
        return study.predictions(rows, split)[0].at(temperature)
    votes = ("probabilities", "hard")
    soft, hard = (matched(study, rows, split, vote, temperature) for vote in votes)
    by_soft, by_hard = (
        metrics.weighted_mean(one.probabilities, model.weights) for one in (soft, hard)
    )
    scores = metrics.track_scores(by_soft, by_hard, soft.truth)
    return Predictions(soft.track_ids, soft.truth, by_soft, by_hard, None, scores)


def _that_fit_together(rows: list[TrialRow]) -> tuple[list[TrialRow], list[str]]:
    """Return the trials that can be served together, and why others are left out."""
    members: list[TrialRow] = []
    left_out: list[str] = []
    for row in rows:
        rates = {one.experiment.front_end.sample_rate for one in (*members, row)}
        if len(members) == MAX_MEMBERS:
            reason = f"a fusion has at most {MAX_MEMBERS} members"
        elif len(rates) > MAX_RATES:
            reason = f"a fusion has members at {MAX_RATES} rates or fewer"
        elif any(math.prod(filter_shape(max(rates), rate)) > MAX_FILTER_VALUES for rate in rates):
            reason = f"its rate and {max(rates)} Hz need a common divisor, as usual rates have one"
        else:
            members.append(row)
            continue
        left_out.append(f"{row.trial_id} ({row.model}) is left out: {reason}")
    return members, left_out


def _decision(study: Context, members: list[TrialRow]) -> Fusion:
    """Return what follows from the predictions on validation."""
    if len(members) < 2:
        return Fusion(False, "there are fewer than two models to fuse")
    try:
        found = matched(study, members, "val")
    except StudyError as error:
        return Fusion(False, str(error))
    num_tracks = len(found.truth)
    if found.num_unknown:
        unknown = f"{found.num_unknown} validation tracks are not known to all models"
        return Fusion(False, unknown)
    if num_tracks < mixing.FOLDS:
        return Fusion(False, f"{num_tracks} validation tracks are too few to weigh it")
    weights = mixing.select_weights(found.probabilities, found.truth).tolist()
    weighed = [
        {"trial_id": row.trial_id, "model": row.model, "weight": weight}
        for row, weight in zip(members, weights, strict=True)
        if weight > 0
    ]
    if len(weighed) < 2:
        return Fusion(False, f"{weighed[0]['trial_id']} alone has the lowest log loss")
    name = study.metric.removeprefix("val_") if study.metric in TRACK_METRICS else "f1_macro"
    fused = mixing.out_of_fold(found.probabilities, found.truth)
    compared = mixing.compare(fused, found.probabilities[0], found.truth, metrics.SCORES[name])
    return Fusion(
        chosen=compared.share_better >= NEEDED_SHARE,
        reason=(
            f"{name} {compared.fusion:.3f} against the winner's {compared.winner:.3f} on "
            f"{num_tracks} validation tracks, higher in {compared.share_better:.1%} of the "
            f"resamplings, where {NEEDED_SHARE:.0%} are needed"
        ),
        members=weighed,
        metric=name,
        **asdict(compared),
        tracks=num_tracks,
        val=metrics.scores_of(fused, found.truth),
    )
