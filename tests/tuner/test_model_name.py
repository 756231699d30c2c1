"""The name of a registered model, under which a study meets the champion of an earlier one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipelines.storage import Folder
from tests.tuner.studies import finished_study
from tests.tuner.test_registry import make_bundle
from tuner.config import loads
from tuner.errors import ConfigError, StudyExistsError
from tuner.ledger.journal import Ledger, StudyPaths
from tuner.ledger.model_name import model_name, name_of_data
from tuner.study.begin import begin, refuse_changes
from tuner.tracking.mlflow_tracker import open_tracker
from tuner.tracking.replay import restore_model

SPACE = "name: first\nmodel: {name: cnn}\n"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/home/me/my-music", "my-music"),
        ("/home/me/my-music/", "my-music"),
        ("/data/ESC-10/manifest.csv", "ESC-10"),
        ("/data/genres.v2.tsv", "genres.v2"),
        ("/srv/bird songs/data/audio", "bird-songs"),
        ("s3://bucket/music/?region=eu", "music"),
        ("s3://bucket/labels.parquet", "bucket"),
        ("/music/Überlänge & Co", "Uberlange-Co"),
        ("/x/" + "a" * 99, "a" * 64),
    ],
)
def test_a_data_set_is_named_for_its_folder_or_manifest(address: str, name: str) -> None:
    found = name_of_data(address)
    assert found == name
    loads(SPACE + f"registry: {{model: '{found}'}}\n")


def test_names_without_a_latin_letter_differ() -> None:
    found = {name_of_data(f"/x/{name}") for name in ("\u97f3\u697d", "\u58f0", "")}
    assert len(found) == 3


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ("", "my-music"),
        ("registry: {model: house-or-not}", "house-or-not"),
        ("data: {root: demo}", "demo"),
    ],
)
def test_a_study_keeps_the_name_that_it_began_with(tmp_path: Path, more: str, name: str) -> None:
    text = SPACE + (more or "data: {root: /x/my-music}") + "\n"
    text += "" if "data" in text else "data: {root: /x/my-music}\n"
    paths = StudyPaths(Folder(tmp_path), "first", Path("/x/my-music"))
    with closing(Ledger(paths.folder)) as ledger:
        begin(loads(text), paths, ledger)
        assert model_name(next(iter(ledger.records()))) == name
        refuse_changes(loads(text), list(ledger.records()))
        with pytest.raises(StudyExistsError, match=r"registry\.model"):
            refuse_changes(loads(text, overrides=["registry.model=other"]), list(ledger.records()))


def test_a_study_of_an_earlier_version_keeps_its_own_name() -> None:
    assert model_name(finished_study("old")[0]) == "old"


def test_a_name_that_the_registry_does_not_take_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"registry\.model: must be .*music/house"):
        loads(SPACE + "registry: {model: 'music/house'}\n")


def study_of(name: str, f1: float, **test: Any) -> list[dict[str, Any]]:
    """A study of the data set ``music`` up to its test; 15 of 19 test tracks are right."""
    records = [one for one in finished_study(name) if one["kind"] != "registered"]
    records[0]["model"] = "music"
    for one in records:
        if one["kind"] == "test":
            one["metrics"]["f1_macro"] = f1
            one.update(test)
    return records


def test_a_second_study_of_the_same_data_replaces_the_champion(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    def done(name: str, f1: float, **test: Any) -> tuple[int | None, str | None, str]:
        records = study_of(name, f1, **test)
        folder = tmp_path / "studies" / name
        with closing(open_tracker(None, tmp_path, name)) as tracker:
            for record in records:
                tracker.record(record)
            tracker.flush()
            bundle = make_bundle(folder / "model")
            found = restore_model(records, bundle, tracker)
        assert found.name == "music"
        return found.version, found.alias, found.reason

    first = done("first", 0.78, classes_digest="x")
    assert first[:2] == (1, "champion")
    better = done("better", 0.85, classes_digest="x")
    assert better[:2] == (2, "champion")
    assert "macro F1 0.8500 against 0.7800 of version 1 on the same tracks" in better[2]
    moved = done("moved", 0.99, split_digest="other")
    assert moved[:2] == (3, None)
    assert "tested on other tracks" in moved[2]
    assert "registry: {model: NAME}" in moved[2]
    relabelled = done("relabelled", 0.99, classes_digest="y")
    assert relabelled[:2] == (4, None)
    assert "other classes of the same tracks" in relabelled[2]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    champion = client.get_model_version_by_alias("music", "champion")
    assert (champion.version, champion.tags["study"]) == (2, "better")
