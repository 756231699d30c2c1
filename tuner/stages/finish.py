"""Last stages: the one look at the test split, and the registration of the winner."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from tuner import metrics, registry, selection
from tuner.trial import export_bundle

if TYPE_CHECKING:
    from tuner.context import Context
    from tuner.selection import TrialRow

TEST_METRICS = ("f1_macro", "accuracy", "clip_f1_macro", "clip_accuracy")


def test_winner(study: Context) -> None:
    """Score the confirmed winner on the test split; a study does this once in its life."""
    if study.ledger.last("test"):
        return
    row = _winning_run(study)
    (answer,) = study.predict([row], "test")
    k = len(study.labels())
    low, high = metrics.bootstrap_interval(answer.truth, answer.predicted, metrics.f1_macro, k)
    measured = {name: answer.metrics[name] for name in TEST_METRICS}
    tracks = "\n".join(sorted(answer.track_ids))
    study.record(
        "test",
        trial_id=row.trial_id,
        metrics={**measured, "ci95": [low, high], "tracks": len(answer.truth)},
        confusion=metrics.confusion(answer.truth, answer.predicted, k).tolist(),
        labels=study.labels(),
        # Two scores can be compared when they were reached on the same tracks.
        split_digest=hashlib.blake2b(tracks.encode(), digest_size=8).hexdigest(),
    )
    study.progress.say(
        f"test: macro F1 {measured['f1_macro']:.3f} (95 % {low:.3f} to {high:.3f}), "
        f"accuracy {measured['accuracy']:.3f} on {len(answer.truth)} tracks"
    )


def register_winner(study: Context) -> None:
    """Export the winner and register it, unless the study has done so.

    Raises:
        TrackingError: the tracking server does not take it.
    """
    if study.ledger.last("registered"):
        return
    row = _winning_run(study)
    final_id = _record_final_run(study, row)
    test = study.required("test")
    leakage = selection.summary(list(study.ledger.records()))["leakage"]
    spec = study.spec(row.trial_id, row.stage, row.seed, row.config)
    fingerprint = Path(
        spec.feature_set
    ).name  # the storage may have been moved since it was recorded
    origin = {
        "study": study.place.name, "trial_id": row.trial_id, "fingerprint": fingerprint,
        "test": test["metrics"],
    }  # fmt: skip
    folder = study.place.folder.resolve()
    bundle = export_bundle(folder, spec, folder / "model", origin)
    study.progress.status("exporting and registering the winner")
    study.tracker.flush()
    facts = registry.ModelFacts(
        study=study.place.name,
        trial_id=row.trial_id,
        fingerprint=fingerprint,
        test_split=test["split_digest"],
        test_f1_macro=test["metrics"]["f1_macro"],
        leak="" if leakage["passed"] else selection.leak_in_words(leakage),
    )
    done = registry.register(
        study.tracker.uri, study.tracker.run_id(final_id), bundle, study.place.name, facts
    )
    study.record(
        "registered", name=done.name, version=done.version, alias=done.alias, reason=done.reason
    )
    study.progress.say(f"registered: {done.reason}")


def _winning_run(study: Context) -> TrialRow:
    return study.rows()[study.required("confirmed")["winner"]["run_trial_id"]]


def _record_final_run(study: Context, row: TrialRow) -> str:
    """Record the run that shows the registered model; it repeats a confirmation run."""
    final_id = f"final-{row.trial_id}"
    final = study.rows().get(final_id)
    if final is None:
        study.record(
            "trial", trial_id=final_id, stage="final", ordinal=0, seed=row.seed,
            params=row.params, config=row.config, parent_trial=row.trial_id,
        )  # fmt: skip
    if final is None or final.status == "running":
        for epoch, measured in row.history[len(final.history) if final else 0 :]:
            study.record("epoch", trial_id=final_id, epoch=epoch, metrics=measured)
        study.record(
            "trial_end", trial_id=final_id, status="completed",
            epochs=len(row.history), best=row.best, error=None,
        )  # fmt: skip
    return final_id
