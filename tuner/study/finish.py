"""Stages after the winner is known: its only test, and its registration."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.ledger.summary import Registration, summarise
from tuner.ledger.trust import Evaluation, leak_in_words
from tuner.study.stages import final_run
from tuner.tracking import registry
from tuner.training import metrics
from tuner.trials.predictions import export_bundle

if TYPE_CHECKING:
    from tuner.ledger.selection import TrialRow
    from tuner.study.context import Context


def test_winner(study: Context) -> None:
    """Score the winner on the test split, once in the life of a study."""
    if study.ledger.last("test"):
        return
    row = final_run(study)
    (found,) = study.predictions([row], "test")
    labels = study.labels()
    k = len(labels)
    low, high = metrics.bootstrap_interval(found.truth, found.predicted, metrics.f1_macro, k)
    by_accuracy = metrics.bootstrap_interval(found.truth, found.predicted, metrics.accuracy, k)
    # NaN is invalid JSON.
    measured = {name: value for name, value in found.metrics.items() if math.isfinite(value)}
    counts = metrics.confusion(found.truth, found.predicted, k)
    evaluation = Evaluation(measured, labels, counts, found.clip_confusion)
    tracks = "\n".join(sorted(found.track_ids))
    scores = {**measured, "ci95": [low, high], "accuracy_ci95": list(by_accuracy)}
    study.record(
        "test",
        trial_id=row.trial_id,
        metrics={**scores, "tracks": len(found.truth)},
        confusion=counts.tolist(),
        clip_confusion=found.clip_confusion.tolist(),
        classes=evaluation.classes_to_json(),
        labels=labels,
        # Two scores are comparable if they were reached on the same tracks.
        split_digest=hashlib.blake2b(tracks.encode(), digest_size=8).hexdigest(),
    )
    study.terminal.say(
        f"test: macro F1 {measured['f1_macro']:.3f} (95 % {low:.3f} to {high:.3f}), "
        f"accuracy {measured['accuracy']:.3f} on {len(found.truth)} tracks"
    )


def register_winner(study: Context) -> None:
    """Export the winner and register it, unless the study has done so.

    Raises:
        TrackingError: The tracking server rejects it.
    """
    if study.ledger.last("registered"):
        return
    row = final_run(study)
    final_id = _record_final_run(study, row)
    test = study.required("test")
    summary = summarise(list(study.ledger.records()))
    assert summary.test is not None
    assert summary.leakage is not None
    spec = study.spec(row)
    # Not from the ledger: the storage may have moved since.
    fingerprint = Path(spec.feature_set).name
    origin = {
        "study": study.paths.name, "trial_id": row.trial_id, "fingerprint": fingerprint,
        "test": test["metrics"],
    }  # fmt: skip
    folder = study.paths.folder.resolved()
    bundle = export_bundle(folder, spec, folder.local("model"), origin)
    study.terminal.status("exporting and registering the winner")
    study.tracker.flush()
    facts = registry.ModelFacts(
        study=study.paths.name,
        trial_id=row.trial_id,
        fingerprint=fingerprint,
        test_split=test["split_digest"],
        test_f1_macro=test["metrics"]["f1_macro"],
        leak="" if summary.leakage.passed else leak_in_words(summary.leakage),
    )
    done = registry.register(
        study.tracker.uri, study.tracker.run_id(final_id), bundle, study.paths.name, facts
    )
    reason = reason_of(done, is_guessing=summary.test.is_guessing)
    study.record("registered", **asdict(replace(done, reason=reason)))
    study.terminal.say(f"registered: {reason}")


def reason_of(done: Registration, is_guessing: bool) -> str:
    """Return why a model was registered or not, with a note if it only guesses."""
    if done.version is None or not is_guessing:
        return done.reason
    # First, because the reason can end in a command.
    return f"no better than guessing on the test tracks, registered anyway: {done.reason}"


def _record_final_run(study: Context, row: TrialRow) -> str:
    """Record the run that shows the registered model, and return its trial id.

    A final fit has such a run already. Otherwise the record repeats the confirmation run.
    """
    if row.stage == "final":
        return row.trial_id
    final_id = f"final-{row.trial_id}"
    final = study.rows().get(final_id)
    if final is None:
        study.record(
            "trial", trial_id=final_id, stage="final", ordinal=0, seed=row.seed,
            params=row.params, config=row.recorded_config, parent_trial=row.trial_id,
        )  # fmt: skip
    if final is None or final.status == "running":
        for epoch, measured in row.history[len(final.history) if final else 0 :]:
            study.record("epoch", trial_id=final_id, epoch=epoch, metrics=measured)
        study.record(
            "trial_end", trial_id=final_id, status="completed",
            epochs=len(row.history), best=row.best, error=None,
        )  # fmt: skip
    return final_id
