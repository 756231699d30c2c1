"""Stage after all scores: record what the report tells beside them; nothing depends on it."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from pipelines.storage import Folder
from pipelines.store import read_manifest
from tuner.ledger import candidates
from tuner.ledger.comparison import Comparison
from tuner.ledger.course import first_whole
from tuner.ledger.noise import whole_trials
from tuner.ledger.summary import summarise
from tuner.study import mixing
from tuner.study.calibrate import temperature
from tuner.study.features import catalog_of
from tuner.study.final import FinalModel, chosen, final_model
from tuner.study.fuse import predict
from tuner.study.mistakes import Listening, listen
from tuner.study.paired import compare, lead
from tuner.training import metrics, uncertainty
from tuner.trials.predictions import Predictions

if TYPE_CHECKING:
    from collections.abc import Callable

    from tuner.ledger.confirmation import Confirmation
    from tuner.study.context import Context

PACKAGES = ("audio-tuner", "torch", "torchaudio", "ray", "mlflow", "scikit-learn", "optuna")


def explain(study: Context) -> None:
    """Record the parts of the report that need the trained models, the data set or the cluster.

    A part that fails is a line in the report: the study has its result already.
    """
    if study.ledger.last("explained"):
        return
    study.terminal.status("listening to the mistakes")
    parts: dict[str, Callable[[Context], dict[str, Any]]] = {
        "versions": _versions, "feature set": _data, "classes on validation": _validation,
        "what tuning bought": _comparison, "trials told apart": _told_apart,
        "mistakes": _mistakes,
    }  # fmt: skip
    fields: dict[str, Any] = {}
    problems = []
    for name, part in parts.items():
        try:
            fields |= part(study)
        except Exception as error:  # noqa: BLE001  # no fault here may cost a finished study
            problems.append(f"{name}: {str(error) or type(error).__name__}")
    study.record("explained", **fields, problems=problems)


def _versions(study: Context) -> dict[str, Any]:
    known = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            known[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # this program, run from its source
            continue
    one = study.cluster
    counted = ((one.num_nodes, "node"), (one.num_cpus, "CPU"), (one.num_gpus, "GPU"))
    machine = ", ".join(f"{n:g} {word}{'' if n == 1 else 's'}" for n, word in counted if n)
    return {"versions": known, "machine": machine}


def _data(study: Context) -> dict[str, Any]:
    path = study.required("features")["features"][0]["path"]
    found = read_manifest(Folder.at(next(iter(study.feature_paths.values()), path)))
    described = found.model_dump(mode="json")
    return {"classes": described["classes"], "reasons": described["reasons"]}


def _before_final_fit(study: Context) -> FinalModel:
    """Return what was chosen, with the weights that have not seen the validation tracks."""
    rows, weights = chosen(study)
    return FinalModel("", tuple(rows), weights)


def _validation(study: Context) -> dict[str, Any]:
    found = predict(study, _before_final_fit(study), "val", temperature(study))
    k = len(study.labels())
    return {"val_confusion": metrics.confusion(found.truth, found.predicted, k).tolist()}


def _tested(study: Context) -> Predictions:
    return predict(study, final_model(study), "test", temperature(study))


def _comparison(study: Context) -> dict[str, Any]:
    summary = summarise(list(study.ledger.records()))
    if summary.confirm and summary.confirm.default:
        return _over_default(study, summary.confirm)
    first = first_whole(summary)
    if first is None or summary.winner is None or first.trial_id == summary.winner.trial_id:
        return {}
    # The trials of a cross-validation are several models, each for its own fold.
    split = "val" if study.space.template.data.num_folds else "test"
    # Both at one temperature: a gain by calibration is not one of the search.
    heat = temperature(study)
    model = final_model(study) if split == "test" else _before_final_fit(study)
    before = study.predictions([study.rows()[first.trial_id]], split)[0].at(heat)
    after = predict(study, model, split, heat)
    both = mixing.match_tracks(
        [before.track_ids, after.track_ids], [before.truth, after.truth],
        [before.probabilities, after.probabilities],
    )  # fmt: skip
    k, predicted = len(study.labels()), both.probabilities.argmax(2)
    ends = uncertainty.paired_interval(
        both.truth, predicted[:1], predicted[1:], metrics.f1_macro, k
    )
    first_f1, tested_f1 = [
        metrics.f1_macro(metrics.confusion(both.truth, one, k)) for one in predicted
    ]
    found = Comparison(first.trial_id, split, first_f1, tested_f1, ends, len(both.truth))
    return {"comparison": found._asdict()}


def _told_apart(study: Context) -> dict[str, Any]:
    """Compare the best trial with others whose predictions of the validation tracks were kept."""
    whole = whole_trials(summarise(list(study.ledger.records())))
    if not whole or study.space.template.search.reshuffle:  # each has tracks of its own
        return {}
    first, *others = whole
    folder, apart = study.paths.folder, {}
    best = Predictions.read(folder, first.trial_id, "val")
    for row in others if best else ():
        other = Predictions.read(folder, row.trial_id, "val")
        if best and other:
            apart[row.trial_id] = lead(study, [other], [best]).ci95[0] > 0
    return {"apart": apart}


def _over_default(study: Context, confirm: Confirmation) -> dict[str, Any]:
    """Compare the winner with the default configuration on the test tracks, over their seeds."""
    # The runs of a cross-validation are several models, compared on validation before.
    if confirm.default is None or confirm.default_won or study.space.template.data.num_folds:
        return {}
    known = {
        one.trial_id: one
        for one in candidates.candidates(study.rows().values(), study.ranking)
    }  # fmt: skip
    other, chosen_one = known[confirm.default["trial_id"]], known[confirm.trial_id]
    found = compare(study, other, chosen_one, "default", "test")
    return {"comparison": found and found._asdict()}


def _mistakes(study: Context) -> dict[str, Any]:
    found = _tested(study)
    wrong = int((found.predicted != found.truth).sum())
    if not wrong:
        return {"num_mistakes": 0}
    listening = Listening.to(
        catalog_of(study.space.template.data.place, study.paths.data), study.paths.folder
    )
    mistakes = listen(found, study.labels(), listening)
    return {"num_mistakes": wrong, "mistakes": [one._asdict() for one in mistakes]}
