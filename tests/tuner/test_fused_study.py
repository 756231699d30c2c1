"""A fusion of trained networks, from the decision to the registered model, without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from pipelines.build.building import build_sets
from pipelines.build.decode import decode_here
from pipelines.build.options import BuildOptions
from pipelines.sources.catalog import read_catalog
from pipelines.storage import Folder
from pipelines.store import open_feature_set
from tests.conftest import write_tones
from tests.tuner.answering import Silent
from tuner.config import Experiment, loads
from tuner.ledger.doubts import doubts
from tuner.ledger.journal import Ledger, StudyPaths
from tuner.ledger.summary import summarise
from tuner.ledger.trial_rows import TrialRow
from tuner.prediction.answer import predict_file
from tuner.prediction.loading import load_model
from tuner.report.result import result_lines
from tuner.study import finish
from tuner.study.context import Context
from tuner.study.ensemble import compare_ensembles
from tuner.study.features import describe
from tuner.study.final import final_model
from tuner.study.fuse import fuse_best, predict
from tuner.study.leaky_twin import run_leaky_twin
from tuner.study.run import publish
from tuner.tracking.mlflow_tracker import open_tracker
from tuner.training.exported import member_folder
from tuner.training.feed import Alone
from tuner.training.predictor import VoteKind
from tuner.trials.plan import Plan
from tuner.trials.predictions import Predictions, predict_split
from tuner.trials.trial import train

# One network hears the lowest of the three tones and the other the highest. Each is sure of a
# third of the tracks and cannot tell the others apart; together they can. They hear the tracks at
# different rates.
SPACE = """
name: fused
data: {clip_seconds: 0.5, clips_per_track: 2, split: {train: 0.5, val: 0.25, test: 0.25}}
features:
  choice:
    - {sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 8, f_max: 500.0}
    - {sample_rate: 22050, n_fft: 512, hop_length: 256, n_mels: 8, f_min: 2000.0, f_max: 5000.0}
model: {name: cnn, blocks: 2, channels: 8}
optim: {lr: 1e-2, schedule: one_cycle}
train: {epochs: 12, batch_size: 12, keep: last}
scheduler: {name: none}
confirm: {fuse: true, top: 2, seeds: 1}
"""


class Local(Context):
    """A study whose trials predict in this process."""

    def predict(self, rows: list[TrialRow], split: str) -> list[Predictions]:
        folder = self.paths.folder.resolved()
        return [predict_split(folder, self.spec(row), split) for row in rows]

    def run_trials(self, plan: Plan) -> None:
        while (one := plan.proposer([])) is not None:
            add_trial(self, one.trial_id, one.stage, one.parent_trial, one.experiment)


def add_trial(study: Local, trial_id: str, stage: str, of: str | None, one: Experiment) -> float:
    """Train a trial and record it; returns its macro F1 on validation."""
    study.record(
        "trial", trial_id=trial_id, stage=stage, ordinal=0, seed=1, parent_trial=of,
        params={"f_max": one.features.f_max}, config=one.model_dump(mode="json"),
    )  # fmt: skip
    reports = list(train(study.paths.folder, study.spec(study.rows()[trial_id]), ALONE))
    measured = {k: v for k, v in reports[-1].items() if k.startswith("val_")}
    study.record(
        "trial_end", trial_id=trial_id, status="completed", epochs=len(reports), error=None,
        best={"epoch": len(reports), "metrics": measured},
    )  # fmt: skip
    return float(measured["val_f1_macro"])


ALONE = Alone(torch.device("cpu"))


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tracks"), per_class=24)


@pytest.fixture(scope="module")
def study(tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """Two networks, trained and confirmed; then the stages from the fusion to the last one."""
    storage = Folder(tmp_path_factory.mktemp("storage"))
    space = loads(SPACE)
    variants = [sample.experiment for sample in space.enumerate_grid()]
    keys = [one.feature_set_key for one in variants]
    split, options = space.template.data.split_spec, BuildOptions(decode=decode_here)
    built = build_sets(read_catalog(tracks), storage.local("features"), keys, split, options)
    paths = StudyPaths(storage, "fused", tracks)
    tracker = open_tracker(None, storage.local(), "fused")
    nothing: Any = SimpleNamespace()
    silent: Any = Silent()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNER_CACHE", str(tmp_path_factory.mktemp("cache")))
        found = Local(space, paths, nothing, Ledger(paths.folder), tracker, silent)
        found.feature_paths = {
            key: str(one.feature_set.path) for key, one in zip(keys, built, strict=True)
        }
        found.record(
            "study", study="fused", source=space.source, settings=space.settings(),
            config=space.template.model_dump(mode="json"), data="tones",
        )  # fmt: skip
        found.record("features", features=[describe(one) for one in built])
        values = {}
        for number, one in enumerate(variants):
            add_trial(found, f"t{number}", "search", None, one)
            values[f"c{number}"] = add_trial(found, f"c{number}", "confirm", f"t{number}", one)
        best = max(values, key=lambda name: values[name])
        found.record(
            "confirmed", seeds=1, mean=values[best], ci95=None, top=[],
            winner={"trial_id": best.replace("c", "t"), "run_trial_id": best},
        )  # fmt: skip
        for stage in (fuse_best, finish.test_winner, finish.register_winner, compare_ensembles):
            stage(found)
        found.record("study_end", status="completed", seconds={"total": 1.0})
        yield found
        tracker.close()


def test_two_networks_that_hear_different_tones_are_fused(study: Local) -> None:
    record = study.required("fused")
    assert record["chosen"] is True, record["reason"]
    assert {one["trial_id"] for one in record["members"]} == {"c0", "c1"}
    assert record["fusion"] > record["winner"]
    # What training said of the winner is found again from its stored weights.
    winner = study.required("confirmed")["winner"]["run_trial_id"]
    assert record["winner"] == study.rows()[winner].value("val_f1_macro")


def test_the_registered_fusion_predicts_the_test_files_as_recorded(
    study: Local, tracks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three roads to one number: stored feature rows, audio files, and the served program."""
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", study.tracker.uri)
    test = study.required("test")
    assert test["trial_id"] == "final-fusion"
    registered = study.required("registered")
    assert (registered["version"], registered["alias"]) == (1, "champion")
    model = load_model("models:/fused@champion", study.tracker.uri)
    assert load_model(str(study.paths.folder.local("model")), "").labels == model.labels
    final = final_model(study)
    rows = predict(study, final, "test")
    folder = next(iter(study.feature_paths.values()))
    table = open_feature_set(Folder(Path(folder))).tracks().to_pylist()
    files = {row["track_id"]: tracks.parent / row["path"] for row in table}
    soft, hard = (
        [predict_file(files[name], model, vote) for name in rows.track_ids]
        for vote in get_args(VoteKind)
    )
    votes = [[one.probabilities[label] for label in model.labels] for one in soft]
    np.testing.assert_allclose(votes, rows.probabilities, rtol=0, atol=2e-3)
    served = mlflow.pyfunc.load_model("models:/fused@champion")
    answers = served.predict([{"path": str(files[name])} for name in rows.track_ids])
    assert [one["probabilities"] for one in answers] == [one.probabilities for one in soft]
    (example,) = served.predict(served.input_example)
    assert example["label"] in model.labels
    predicted = [model.labels.index(str(one.label)) for one in soft]
    expected = f1_score(rows.truth, predicted, average="macro")
    assert test["metrics"]["f1_macro"] == pytest.approx(expected)
    votes = [[one.probabilities[label] for label in model.labels] for one in hard]
    np.testing.assert_allclose(votes, rows.hard)
    assert {one.clips for one in soft} == {4}  # two of each member


def test_a_killed_registration_continues_with_the_same_fusion(study: Local) -> None:
    """The export is repeated over the old one."""
    folder = study.paths.folder.local("model")
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    assert member_folder(folder, 1) / "bundle.json" in before
    kept = Ledger(Folder(study.paths.storage.local("again")))
    for record in study.ledger.records():
        if record["kind"] == "registered":
            break
        fields = {k: v for k, v in record.items() if k not in ("seq", "time_ms", "kind")}
        kept.append(record["kind"], **fields)
    again = replace(study, ledger=kept)
    finish.register_winner(again)
    after = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    assert after == before
    done, known = (one.required("registered") for one in (again, study))
    assert (done["version"], done["alias"]) == (known["version"], known["alias"])


def test_the_fusion_has_a_final_run_with_its_members_and_its_test(study: Local) -> None:
    from mlflow import MlflowClient

    run = MlflowClient(study.tracker.uri).get_run(study.tracker.run_id("final-fusion"))
    weights = {f"weight.{m['trial_id']}": m["weight"] for m in study.required("fused")["members"]}
    assert run.info.run_name == "final fusion"
    assert {k: float(v) for k, v in run.data.params.items() if k.startswith("weight.")} == weights
    assert run.data.params["model"] == "fusion"
    assert run.data.tags["stage"] == "final"
    test = study.required("test")["metrics"]
    assert run.data.metrics["test_f1_macro"] == test["f1_macro"]
    assert run.data.metrics["best_val_f1_macro"] == study.required("fused")["fusion"]
    parent = MlflowClient(study.tracker.uri).get_run(study.tracker.parent_run_id)
    assert parent.data.metrics["test_f1_macro"] == test["f1_macro"]
    assert parent.data.tags["fused"] == "true"
    assert "**Fusion**, " in parent.data.tags["mlflow.note.content"]


def test_every_display_names_the_fusion(study: Local) -> None:
    summary = summarise(list(study.ledger.records()))
    publish(study.paths, summary, study.tracker)
    found = summary.to_json()
    assert found["confirm"]["fusion"]["chosen"] is True
    assert found["confirm"]["refit"] is False
    assert any("the tested model is a fusion" in text for text in doubts(summary))
    lines = list(result_lines(summary, study.paths, None))
    (line,) = (line for line in lines if line.startswith("fusion"))
    assert "c0 (cnn) x 0." in line
    assert "in place of the winner" in line
    page = study.paths.folder.read_text("report.html")
    assert "used once, by the fusion" in page
    assert "All test scores of the fusion" in page


def test_the_leaky_twin_of_the_winner_is_scored_beside_it(study: Local) -> None:
    before = list(study.ledger.records())
    run_leaky_twin(study)
    assert list(study.ledger.records()) == before, "nobody asked for a twin"
    asked = replace(study, asks_for_twin=True)
    for _ in range(2):  # the second time finds it
        run_leaky_twin(asked)
    records = list(study.ledger.records())
    assert records[: len(before)] == before
    kinds = [record["kind"] for record in records[len(before) :]]
    assert kinds == ["trial", "trial_end", "leaky_twin"]
    found = study.required("leaky_twin")
    winner = study.required("confirmed")["winner"]["run_trial_id"]
    assert (found["repeats"], found["trial_id"]) == (winner, f"leaky-{winner}")
    (of_winner,) = study.predictions([study.rows()[winner]], "test")
    assert found["honest"]["f1_macro"] == of_winner.metrics["f1_macro"]

    leaky = open_feature_set(study.paths.features / found["fingerprint"])
    assert leaky.manifest.leakage.clip_split
    honest = open_feature_set(Folder(Path(study.spec(study.rows()[winner]).feature_set)))
    names = [
        {row["track_id"] for row in one.tracks().to_pylist() if row["split"]}
        for one in (leaky, honest)
    ]
    assert names[0] == names[1]
    assert dict(leaky.manifest.clips) == dict(honest.manifest.clips)
    # Of a track with its two clips in two splits, the test has one; so more tracks are in it.
    assert found["leaky"]["tracks"] > found["honest"]["tracks"]
