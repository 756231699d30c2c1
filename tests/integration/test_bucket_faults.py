"""Studies and builds whose bucket is away, refuses the keys, or is gone, with the same result."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.storage import Folder
from pipelines.store import open_feature_set
from tests.chaos.invariants import OF_RUNS, OF_TIME
from tests.chaos.study import SPACE
from tests.object_store import BUCKET, Proxy, variables
from tests.pipelines.test_folders import STORES
from tests.pipelines.test_interruption import ROOT
from tuner.ledger.journal import recorded

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1000)]

# A command whose driver gives up after so many seconds instead of a quarter of an hour.
HASTY = (
    "import runpy; from pipelines.storage import patience; patience.SECONDS = {}; "
    "runpy.run_module('tuner.run', run_name='__main__', alter_sys=True)"
)
APPENDS = 12  # records after which the trouble begins, in the middle of a trial


@dataclass
class Outage:
    """Trouble that begins with a record of the ledger, and ends after a time."""

    answer: int | str
    seconds: float
    appends: int = 0
    since: float | None = None

    def __call__(self, method: str, path: str, _: int) -> int | str | None:
        self.appends += method == "PUT" and "/ledger.jsonl/" in path
        if self.appends < APPENDS:
            return None
        self.since = self.since or time.monotonic()
        return self.answer if time.monotonic() - self.since < self.seconds else None


@dataclass
class Study:
    """A study in a bucket, with Ray on this machine.

    Attributes:
        folder: Folder of this machine, for the space file and caches.
        tones: Manifest of the audio.
        storage: Folder of the results.
    """

    folder: Path
    tones: Path
    storage: Folder

    def run(self, patience_seconds: float | None = None) -> subprocess.CompletedProcess[str]:
        """Run the one command."""
        space = self.folder / "small.yaml"
        space.write_text(SPACE)
        start = ["-m", "tuner.run"]
        if patience_seconds is not None:
            start = ["-c", HASTY.format(patience_seconds)]
        options = ["--data", str(self.tones), "--storage", str(self.storage)]
        return subprocess.run(
            [sys.executable, *start, str(space), *options], cwd=ROOT, text=True, timeout=900,
            env=environment(self.folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def result(self) -> dict[str, Any]:
        """Return what the study has in common with an undisturbed one."""
        study = self.storage / "studies" / "small"
        records = [
            {key: value for key, value in record.items() if key not in OF_TIME}
            for record in recorded(study)
            if record["kind"] not in OF_RUNS
        ]
        text = json.dumps(records).replace(str(self.storage), "STORAGE")
        weights = sorted(study.local("model").rglob("*.safetensors"))
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in weights]
        return {"records": json.loads(text), "weights": digests}


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of a process with a cache of its own and the bucket's keys."""
    given = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    given["TUNER_CACHE"] = str(folder / "cache")
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        given.pop(name, None)
    return given


@pytest.fixture(autouse=True)
def keys(object_store: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in variables(object_store.address).items():
        monkeypatch.setenv(name, value)
    yield
    object_store.trouble = lambda *_: None


@pytest.fixture(scope="module")
def undisturbed(
    object_store: Proxy, tones: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    study = Study(tmp_path_factory.mktemp("undisturbed"), tones, Folder.at(f"s3://{BUCKET}/calm"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(object_store.address).items():
            patch.setenv(name, value)
        done = study.run()
        assert done.returncode == 0, done.stdout
        return study.result()


@pytest.fixture
def study(tones: Path, tmp_path: Path) -> Study:
    return Study(tmp_path, tones, Folder.at(f"s3://{BUCKET}/{tmp_path.name}"))


@pytest.mark.parametrize(
    ("answer", "seconds", "reason"),
    [("reset", 600.0, "it does not answer"), (403, 30.0, "the keys have ended")],
)
def test_an_outage_in_the_middle_of_a_trial_changes_nothing(
    study: Study,
    object_store: Proxy,
    undisturbed: dict[str, Any],
    answer: int | str,
    seconds: float,
    reason: str,
) -> None:
    object_store.trouble = outage = Outage(answer, seconds)
    done = study.run()
    assert done.returncode == 0, done.stdout
    assert outage.since is not None
    assert f"s3://{BUCKET}: {reason}; trying again, for at most" in done.stdout
    assert study.result() == undisturbed


def test_a_bucket_that_is_gone_ends_the_command_which_continues_when_it_is_back(
    study: Study, object_store: Proxy, undisturbed: dict[str, Any]
) -> None:
    object_store.trouble = Outage(404, float("inf"))
    began = time.monotonic()
    gone = study.run(patience_seconds=12.0)
    assert time.monotonic() - began < 300  # and not a quarter of an hour
    assert gone.returncode == 1, gone.stdout
    assert "Traceback" not in gone.stdout
    told = f"error: s3://{BUCKET}: there is no such bucket; run the same command again when it"
    assert gone.stdout.count(told) == 1
    assert gone.stdout.count("error: ") == 1
    again = study.run()
    assert again.returncode == 1, again.stdout
    assert f"error: s3://{BUCKET}: there is no such bucket; correct the address" in again.stdout
    object_store.trouble = lambda *_: None
    done = study.run()
    assert done.returncode == 0, done.stdout
    assert study.result() == undisturbed


@pytest.mark.parametrize("scheme", ["gs", "abfs"])
def test_a_study_in_another_store_is_the_same(
    study: Study, undisturbed: dict[str, Any], scheme: str, monkeypatch
) -> None:
    server, found_by = STORES[scheme]
    with server() as address:
        for name, value in found_by(address).items():
            monkeypatch.setenv(name, value)
        other = replace(study, storage=Folder.at(f"{scheme}://{BUCKET}/results"))
        done = other.run()
        assert done.returncode == 0, done.stdout
        assert other.result() == undisturbed
        # The audio lies there too, and all workers read it.
        audio = Folder.at(f"{scheme}://{BUCKET}/audio")
        for file in study.tones.parent.rglob("*"):
            if file.is_file():
                audio.write_bytes(str(file.relative_to(study.tones.parent)), file.read_bytes())
        build = ["pipelines.build", str(audio / study.tones.name), "--out", str(audio / "sets")]
        done = subprocess.run(
            [sys.executable, "-m", *build, "--clip-seconds", "0.5", "--json"], cwd=ROOT, text=True,
            timeout=300, env=environment(study.folder), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        tracks = json.loads(done.stdout.splitlines()[-1])["tracks"]
        assert (tracks["listed"], tracks["quarantined"]) == (36, 0)


def test_a_build_that_was_frozen_for_too_long_is_told(
    object_store: Proxy, tones: Path, tmp_path: Path
) -> None:
    """The driver stops with its first batch; another build takes its leases and ends."""
    out, frozen = f"s3://{BUCKET}/{tmp_path.name}", list[int]()

    def build(folder: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pipelines.build", str(tones), "--out", out]
        return subprocess.Popen(
            command, cwd=ROOT, text=True, env=environment(tmp_path / folder),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def freeze(method: str, path: str, _: int) -> None:
        if method == "PUT" and ".arrow" in path and not frozen:
            frozen.append(first.pid)
            first.send_signal(signal.SIGSTOP)

    object_store.trouble = freeze
    first = build("first")
    with first:
        while not frozen:
            time.sleep(0.1)
        with build("second") as second:
            said, _ = second.communicate(timeout=200)
        assert second.returncode == 0, said
        (name,) = [name for name in Folder.at(out).names() if "." not in name]
        before = open_feature_set(Folder.at(out) / name).manifest
        first.send_signal(signal.SIGCONT)
        said, _ = first.communicate(timeout=100)
    assert first.returncode == 1, said
    assert "another process has taken it over" in said
    assert "Traceback" not in said
    after = open_feature_set(Folder.at(out) / name)
    after.verify(digests=True)
    assert after.manifest == before
