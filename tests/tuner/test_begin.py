"""What a study leaves behind that was refused, did not start, or failed."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from pipelines.build import ray_start
from pipelines.errors import BuildError, UserError
from pipelines.plain_text import for_markdown
from pipelines.storage import Folder
from tests.loopback import free_ports
from tests.tuner.answering import Silent
from tests.tuner.studies import finished_study
from tuner.config import loads
from tuner.errors import StudyExistsError
from tuner.ledger.journal import FILE, LOCK, Ledger, StudyPaths, recorded
from tuner.ledger.locate import locked
from tuner.report.terminal import Terminal
from tuner.run import main
from tuner.study import run
from tuner.study.begin import begin, begin_study
from tuner.study.context import Context
from tuner.tracking.mlflow_tracker import open_tracker
from tuner.tracking.projection import Projection
from tuner.trials import cluster
from tuner.trials.cluster import Cluster

SPACE = "name: small\nmodel: {name: cnn}\nsearch: {trials: 3}\n"


def content(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def command(space: Path, data: Path, storage: Path, *more: str) -> Result:
    words = [str(space), "--data", str(data), "--storage", str(storage), *more]
    return CliRunner().invoke(main, words)


@pytest.fixture
def space(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SPACE)
    return tmp_path / "small.yaml"


SMALL = Cluster("nowhere:1", 1, 0, 1, False)
OTHER = "{name: cnn, blocks: 5}"
REFUSALS: dict[str, tuple[list[str], str]] = {
    "another value": (["--set", "train.epochs=7"], "train.epochs: it has 20, this command 7"),
    "another model": (["--set", f"model={OTHER}"], "model.blocks: it has 4, this command 5"),
    "another metric": (["--set", "search.metric=val_accuracy"], "search.metric: it has"),
    "more trials": (["--trials", "4"], "it has 3, this command 4 (--extend N adds N trials"),
    "a mistake": (["--set", "train.epoch=7"], "did you mean `train.epochs`?"),
    "a bad flag": (["--exten", "8"], "No such option"),
    "a bad budget": (["--budget", "soon"], "must be a duration"),
    "no data": (["--data", "nowhere"], "nothing at"),
    "another split": (["--set", "data.split={train: 0.4, val: 0.3, test: 0.3}"], "split: it has"),
    "nothing to resume": (["--resume", "--name", "other"], "there is no study 'other'"),
    "nothing to extend": (["--extend", "8", "--name", "other"], "there is no study 'other'"),
    "no number": (["--extend", "many"], "a number of trials such as 8 (at most 100000), or"),
    "no trial": (["--extend", "0"], "got '0'"),
    "two limits": (["--extend", "8", "--trials", "9"], "leave --trials out"),
    "no time limit": (["--extend", "20m"], "has no time limit and has not ended"),
    "an extension of other data": (
        ["--extend", "8", "--set", "data.clip_seconds=2.0"], "data.clip_seconds: it has",
    ),
    "an extension by another metric": (
        ["--extend", "8", "--set", "search.metric=val_accuracy"], "search.metric: it has",
    ),
    "a warm start from nothing": (
        ["--name", "other", "--set", "search.warm_start=[nothing]"], "no study 'nothing'",
    ),
    "too large trials": (["--set", "resources.cpus_per_worker=2"], "one trial asks for 2 CPUs"),
    "too large trials, extended": (
        ["--extend", "8", "--set", "resources.cpus_per_worker=2"], "one trial asks for 2 CPUs",
    ),
    "too large trials of a new study": (
        ["--name", "other", "--set", "resources.cpus_per_worker=2"], "one trial asks for 2 CPUs",
    ),
    "too large trials on the demo": (
        ["--name", "other", "--data", "demo", "--set", "resources.cpus_per_worker=2"],
        "one trial asks for 2 CPUs",
    ),
}  # fmt: skip


@pytest.fixture
def begun(space: Path, tones: Path, tmp_path: Path) -> StudyPaths:
    """A study that was killed while it wrote a file, which is still there."""
    paths = StudyPaths(Folder(tmp_path / "results"), "small", tones)
    with locked(paths.folder), closing(Ledger(paths.folder)) as ledger:
        begin(loads(SPACE), paths, ledger)
    paths.folder.write_text(".writing-0-report.html", "half of")
    return paths


@pytest.mark.parametrize(("words", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_a_refused_command_changes_no_file(
    words: list[str], reason: str, begun: StudyPaths, space: Path, tones: Path, tmp_path: Path,
    monkeypatch,
) -> None:  # fmt: skip
    """Also not by ending the run that was killed, or removing what it left."""
    monkeypatch.setattr(cluster, "connect", lambda *_, **__: SMALL)
    monkeypatch.setattr(ray_start, "disconnect", lambda: None)
    before = content(tmp_path)
    assert len(before) == 6  # ledger, lock, space file and resolved, half a file; our space file
    found = command(space, tones, tmp_path / "results", *words)
    assert (found.exit_code, found.stderr.count("error: ") <= 1) == (2, True)
    assert reason in " ".join(found.stderr.split())
    assert content(tmp_path) == before


def test_a_study_whose_audio_has_changed_is_refused_before_anything_is_built(
    begun: StudyPaths, space: Path, tones: Path, tmp_path: Path
) -> None:
    with closing(Ledger(begun.folder)) as ledger:
        ledger.append("features", features=[{"fingerprint": "0123456789abcdef"}])
    before = content(tmp_path)
    for more in ((), ("--extend", "8")):
        found = command(space, tones, tmp_path / "results", *more)
        assert found.exit_code == 2
        assert "the audio, its labels or the split" in found.stderr
        assert content(tmp_path) == before


def test_a_dry_run_of_an_extension_says_what_it_would_add(
    begun: StudyPaths, space: Path, tones: Path, tmp_path: Path
) -> None:
    with closing(Ledger(begun.folder)) as ledger:
        ledger.append("searched", trials=0, reason="the budget")
        ledger.append("study_end", status="completed")
    before, found = content(tmp_path), None
    for asked, added, number in (
        ("8", "by 8 trials", "8"),
        ("20m", "by 20m", "as many as the time holds"),
    ):
        found = command(
            space, tones, tmp_path / "results", "--extend", asked, "--dry-run",
            "--set", "optim.lr={log_uniform: [1e-3, 1e-2]}",
        )  # fmt: skip
        assert found.exit_code == 0, found.stderr
        assert f"\nextended     {added} after 0 trials with other ranges\n" in found.stdout
        assert f"\ntrials       {number} by tpe, " in found.stdout
    assert found is not None
    assert "about 20m more, of which the search leaves" in found.stdout
    assert content(tmp_path) == before
    with closing(Ledger(begun.folder)) as ledger:
        ledger.append("extended", asked="8", began=0, trials=8, limits={}, left_out=[])
    found = command(space, tones, tmp_path / "results", "--extend", "8", "--dry-run")
    assert "--extend 8 has been added already" in found.stdout


def test_a_study_that_runs_is_refused_without_a_trace(
    begun: StudyPaths, space: Path, tones: Path, tmp_path: Path
) -> None:
    with locked(begun.folder):
        before = content(tmp_path)
        found = command(space, tones, tmp_path / "results")
        assert found.exit_code == 2
        assert "study 'small' is running in process" in found.stderr
        assert content(tmp_path) == before


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs; MLflow takes seconds to make one."""
    folder = tmp_path_factory.mktemp("store")
    open_tracker(None, folder, "other").close()
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.execute("VACUUM INTO ?", [str(folder / "whole.db")])  # with what is in its log
    return folder / "whole.db"


@pytest.mark.parametrize("lacks", ["store", "cluster"])
def test_a_start_that_fails_leaves_no_study(
    lacks: str, space: Path, tones: Path, tmp_path: Path, database: Path, monkeypatch
) -> None:
    (tmp_path / "results").mkdir()
    shutil.copy(database, tmp_path / "results" / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if lacks == "store":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/runs")
    address = f"127.0.0.1:{free_ports(1)[0]}"
    found = command(space, tones, tmp_path / "results", "--address", address)
    assert (found.exit_code, found.stderr.count("error: ")) == (1, 1)
    assert not (tmp_path / "results" / "studies").exists()
    if lacks == "cluster":
        store = MlflowClient(f"sqlite:///{tmp_path / 'results' / 'mlflow.db'}")
        assert store.get_experiment_by_name("small") is None


def runs(storage: Path) -> list[tuple[str, str, str]]:
    """State of each run, why it failed, and the note on its page."""
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    return [
        (run.info.status, run.data.tags.get("error", ""), run.data.tags["mlflow.note.content"])
        for run in client.search_runs([experiment.experiment_id])
    ]


@pytest.fixture
def study(tmp_path: Path, database: Path) -> Iterator[Context]:
    """A study in a process that has joined a cluster of one processor, before its first stage."""
    shutil.copy(database, tmp_path / "mlflow.db")
    paths = StudyPaths(Folder(tmp_path), "small", tmp_path)
    joined = Cluster("nowhere:1", 1, 0, 1, False)
    tracker = open_tracker(None, tmp_path, "small")
    with closing(Ledger(paths.folder)) as ledger, Terminal("val_f1_macro") as terminal:
        found = Context(loads(SPACE), paths, joined, ledger, tracker, terminal)
        with found.held:
            yield found
    tracker.close()


def fail(error: Exception) -> Callable[[Context], None]:
    def stage(_study: Context) -> None:
        raise error

    return stage


def test_a_study_that_cannot_begin_leaves_nothing_and_one_that_fails_says_why(
    study: Context, monkeypatch
) -> None:
    monkeypatch.setitem(run.STAGES, "features", fail(BuildError("all files are bad")))
    with pytest.raises(UserError, match="all files are bad"):
        run.run(study)
    assert not study.paths.folder.exists()
    assert study.tracker.flush()
    assert runs(study.paths.storage.local()) == []

    study.features = finished_study()[1]["features"]
    monkeypatch.setitem(run.STAGES, "features", lambda _study: None)
    errors = [
        (BuildError("the workers died"), "the workers died"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
        (BuildError("a\n```\n[b](c).wav"), "a\n```\n[b](c).wav"),
        (OSError(5, "Input/output error", "/disk"), "/disk: Input/output error"),
    ]
    for error, reason in errors:
        monkeypatch.setitem(run.STAGES, "pace", fail(error))
        with pytest.raises(type(error)):
            run.run(study)
        end = study.ledger.last("study_end")
        assert end is not None
        assert (end["status"], end["reason"]) == ("failed", reason)
        assert study.tracker.flush()
        [(state, tag, note)] = runs(study.paths.storage.local())
        assert (state, tag) == ("FAILED", reason)
        assert note.startswith(f"**Failed**: {for_markdown(reason)}\n")
        assert "```" not in note
    # What is refused later does not touch how it ended.
    before = content(study.paths.folder.local())
    monkeypatch.setitem(run.STAGES, "features", fail(StudyExistsError("small", ["the audio"])))
    with pytest.raises(StudyExistsError):
        run.run(study)
    assert content(study.paths.folder.local()) == before


@pytest.mark.parametrize("torn", [None, b"", b'0a1b2c3d {"seq":0,"ti'])
def test_a_new_study_keeps_its_lock_until_all_is_stored_and_ray_has_ended(
    torn: bytes | None, tmp_path: Path, monkeypatch
) -> None:
    """Also one that died while it wrote its first record, which starts again as a new one."""
    paths = StudyPaths(Folder(tmp_path), "small", tmp_path)
    if torn is not None:
        paths.folder.write_bytes(FILE, torn)
    ends: list[tuple[str, bool]] = []

    def ending(what: str) -> None:
        try:
            with paths.folder.lock(LOCK, timeout_seconds=0.0):
                ends.append((what, False))
        except TimeoutError:
            ends.append((what, True))

    class Tracker(Silent):
        def close(self) -> None:
            ending("tracker")

    stages = {"begin": begin_study, "search": fail(BuildError("no more"))}
    monkeypatch.setattr(run, "STAGES", stages)
    monkeypatch.setattr(run, "open_tracker", lambda *_: Tracker())
    joined = Cluster("nowhere:1", 1, 0, 1, False)
    monkeypatch.setattr(cluster, "connect", lambda *_, **__: joined)
    monkeypatch.setattr(ray_start, "disconnect", lambda: ending("Ray"))
    with pytest.raises(BuildError, match="no more"):
        run.carry_out(loads(SPACE + "data: {root: music}\n"), paths, "nowhere:1")
    assert ends == [("tracker", True), ("Ray", True)]
    kinds = [record["kind"] for record in recorded(paths.folder)]
    assert kinds == ["study", "features", "study_end"]
    with locked(paths.folder):
        pass


def test_a_study_that_goes_on_has_no_reason_to_have_failed() -> None:
    projection = Projection()
    config = loads(SPACE).template.model_dump(mode="json")
    records = [
        {"kind": "study", "study": "small", "source": SPACE, "settings": {}, "config": config},
        {"kind": "study_end", "status": "failed", "seconds": {}, "reason": "no room"},
        {"kind": "study_end", "status": "completed", "seconds": {}, "reason": ""},
    ]
    seen = []
    for number, record in enumerate(records):
        projection.apply({"seq": number, "time_ms": number, **record})
        assert projection.parent is not None
        seen.append((projection.parent.status, projection.parent.tags.get("error")))
    assert seen == [("RUNNING", None), ("FAILED", "no room"), ("FINISHED", "")]
