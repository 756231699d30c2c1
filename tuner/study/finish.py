"""Stages after the final model is known: its only test, and its registration."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.storage import Folder
from tuner.errors import decorating
from tuner.ledger.doubts import doubts
from tuner.ledger.extension import looks_at_test
from tuner.ledger.states import State
from tuner.ledger.summary import summarise
from tuner.ledger.trial_rows import TrialRow
from tuner.ledger.trust import Evaluation, leak_in_words, scores_in_words
from tuner.study import mixing
from tuner.study.baselines import compare_on_test
from tuner.study.calibrate import temperature
from tuner.study.final import final_model
from tuner.study.fuse import predict
from tuner.study.kept_test import keep_test
from tuner.tracking import store
from tuner.tracking.replay import restore_model
from tuner.training import metrics, uncertainty
from tuner.training.calibration import reliability
from tuner.training.exported import member_folder
from tuner.training.profile import save_profile
from tuner.trials.predictions import export_bundle, export_fusion, training_profile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tuner.study.context import Context
    from tuner.study.final import FinalModel


def test_winner(study: Context) -> None:
    """Score the winner, or the fusion in its place, on the test split: each model once.

    An extension with the same winner keeps its test. A new winner is a second look at the split,
    which is recorded and said.
    """
    if study.ledger.last("test"):
        return
    model = final_model(study)
    if keep_test(study, model):
        return
    looks = 1 + looks_at_test(study.ledger.records())
    found = predict(study, model, "test", temperature(study))
    before = predict(study, model, "test")
    labels = study.labels()
    k = len(labels)
    is_refit = all(row.stage == "final" for row in model.rows)
    compare_on_test(study, found, is_refit=is_refit)
    # NaN is invalid JSON.
    measured = {name: value for name, value in found.metrics.items() if math.isfinite(value)}
    intervals = uncertainty.intervals(found.truth, found.predicted, k)
    scores = {**measured, **intervals, "tracks": len(found.truth)}
    counts = metrics.confusion(found.truth, found.predicted, k)
    clips = found.clip_confusion
    evaluation = Evaluation(measured, labels, counts, clips)
    classes = (labels[one] for one in found.truth)
    pairs = [f"{track}\t{label}" for track, label in zip(found.track_ids, classes, strict=True)]
    study.record(
        "test",
        trial_id=model.trial_id,
        refit=is_refit,
        look=looks,
        metrics=scores,
        confusion=counts.tolist(),
        clip_confusion=None if clips is None else clips.tolist(),
        classes=evaluation.classes_to_json(),
        labels=labels,
        reliability={
            name: asdict(reliability(one.probabilities, one.truth))
            for name, one in (("before", before), ("after", found))
        },
        # Two scores are comparable if they were reached on the same tracks.
        split_digest=_digest(found.track_ids),
        classes_digest=_digest(pairs),
    )
    again = f"; look {looks} at the test split" if looks > 1 else ""
    study.terminal.say(f"test: {scores_in_words(scores)}{again}")


def _digest(lines: Iterable[str]) -> str:
    text = "\n".join(sorted(lines))
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def register_winner(study: Context) -> None:
    """Export the tested model and register it, unless the study has done so.

    Raises:
        TrackingError: The store refuses it, or has not answered for ten minutes.
    """
    if study.ledger.last("registered"):
        return
    model = final_model(study)
    _record_final_run(study, model)
    test = study.required("test")
    study.terminal.status("exporting and registering the winner")
    summary = summarise(list(study.ledger.records()))
    assert summary.leakage is not None
    origin = {
        "test": test["metrics"],
        "leakage": leak_in_words(summary.leakage),
        "caveats": list(doubts(summary)),
    }
    bundle, records = _export(study, model, origin), list(study.ledger.records())
    study.tracker.flush()
    done = store.retry_while_away(
        lambda: restore_model(records, bundle, study.tracker), study.terminal.say
    )
    study.record("registered", **asdict(done))
    study.terminal.say(f"registered: {done.reason}")


def _export(study: Context, model: FinalModel, origin: dict[str, Any]) -> Path:
    """Export the model; return its folder."""
    specs = [study.spec(row) for row in model.rows]
    # Not from the ledger: the storage may have moved since.
    fingerprint = " ".join(dict.fromkeys(Folder.at(spec.feature_set).name for spec in specs))
    named = {
        "study": study.paths.name, "trial_id": model.trial_id, "fingerprint": fingerprint, **origin
    }  # fmt: skip
    folder = study.paths.folder.resolved()
    divisor = temperature(study)
    with folder.building("model") as target:
        if model.is_fusion:
            export_fusion(folder, specs, model.weights, target, named, divisor)
        else:
            export_bundle(folder, specs[0], target, named, divisor)
        for number, spec in enumerate(specs):
            own = member_folder(target, number) if model.is_fusion else target
            with decorating("the profile of the training data, for tuner.evaluate,"):
                save_profile(Folder(own), training_profile(spec))
    return folder.local("model")


def _record_final_run(study: Context, model: FinalModel) -> None:
    """Record the run that shows the registered model.

    A final fit has such a run already. Otherwise the record repeats the confirmation run, or
    lists the members of the fusion.
    """
    row = model.rows[0]
    if row.stage == "final" and not model.is_fusion:
        return
    shown = _fusion_as_trial(study, model) if model.is_fusion else row
    final_id = model.trial_id if model.is_fusion else f"final-{row.trial_id}"
    final = study.rows().get(final_id)
    if final is None:
        study.record(
            "trial", trial_id=final_id, stage="final", ordinal=0, seed=shown.seed,
            params=shown.params, config=shown.recorded_config,
            parent_trial=None if model.is_fusion else row.trial_id,
        )  # fmt: skip
    if final is None or final.is_unfinished:
        for epoch, measured in shown.history[len(final.history) if final else 0 :]:
            study.record("epoch", trial_id=final_id, epoch=epoch, metrics=measured)
        study.record(
            "trial_end", trial_id=final_id, status=State.COMPLETED,
            epochs=len(shown.history), best=shown.best, error=None,
        )  # fmt: skip


def _fusion_as_trial(study: Context, model: FinalModel) -> TrialRow:
    """Return a fusion in the form of a trial: no epochs, and its scores out of fold."""
    scores = study.required("fused")["val"]
    return TrialRow(
        trial_id=model.trial_id,
        stage="final",
        ordinal=0,
        seed=mixing.SEED,
        params={
            f"weight.{row.trial_id}": weight
            for row, weight in zip(model.rows, model.weights, strict=True)
        },
        recorded_config={"name": study.paths.name, "model": {"name": "fusion"}},
        parent_trial=None,
        best={
            "epoch": None,
            "metrics": {f"val_{name}": value for name, value in scores.items()},
        },
    )
