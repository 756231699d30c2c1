"""A bucket with audio, clusters that share nothing but it, and one study that they carry out."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from pipelines.storage import Folder
from tests.loopback import Loopback, cluster
from tests.object_store import BUCKET, Proxy, variables
from tuner.ledger.journal import recorded

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = [
    "train.epochs=2", "scheduler.grace_epochs=1", "scheduler.reduction_factor=2",
    "confirm.top=1", "confirm.seeds=1", "confirm.default=false", "search.trials=3",
]  # fmt: skip
END_SECONDS = 240.0
RATE = 22050  # that of the space file
Records = list[dict[str, Any]]


def write_noise(folder: Path) -> Path:
    """Two classes of six recordings, each noise of a colour of its own."""
    for number, label in enumerate(("hiss", "hum")):
        (folder / label).mkdir(parents=True)
        for take in range(6):
            rng = np.random.default_rng([number, take])
            kernel = rng.standard_normal(16) * np.hanning(16)
            sound = np.convolve(rng.standard_normal(3 * RATE), kernel, "same")
            soundfile.write(folder / label / f"{take}.wav", sound / np.abs(sound).max() / 2, RATE)
    return folder


@dataclass
class World:
    """A bucket with audio, and the studies that clusters leave in it.

    Attributes:
        proxy: The object store, as the clusters reach it.
        folder: Folder of this machine, for tokens, caches and logs.
        bucket: This world's own part of the bucket, since servers of one process share theirs.
    """

    proxy: Proxy
    folder: Path
    bucket: Folder
    clusters: list[Path] = field(default_factory=list)

    @property
    def data(self) -> Folder:
        """Folder of the audio."""
        return self.bucket / "noise"

    @property
    def storage(self) -> Folder:
        """Folder of the studies."""
        return self.bucket / "results"

    @property
    def study(self) -> Folder:
        """Folder of the study."""
        return self.storage / "studies" / "quickstart"

    def records(self) -> Records:
        """What the ledger holds now."""
        return recorded(self.study)

    @classmethod
    def on(cls, proxy: Proxy, folder: Path) -> World:
        """Put audio into the bucket; the environment must lead to it."""
        world = cls(proxy, folder, Folder.at(f"s3://{BUCKET}/{uuid.uuid4().hex}"))
        assert not world.records()
        for file in write_noise(folder / "noise").rglob("*.wav"):
            world.data.write_bytes(str(file.relative_to(folder / "noise")), file.read_bytes())
        return world

    def new_cluster(self) -> Any:
        """Start two nodes that have nothing but the keys of the bucket."""
        self.clusters.append(self.folder / f"cluster {len(self.clusters)}")
        self.clusters[-1].mkdir()
        return cluster(self.clusters[-1], 2, variables(self.proxy.address))

    def command(self, more: Sequence[str] = ()) -> list[str]:
        """Return the one command, with more settings."""
        command = ["python", "-m", "tuner.run", "search_spaces/quickstart.yaml", "--json"]
        command += ["--data", str(self.data), "--storage", str(self.storage)]
        return command + [word for one in (*SETTINGS, *more) for word in ("--set", one)]

    def submit(self, running: Loopback, more: Sequence[str] = (), job: str = "study") -> None:
        """Send the one command."""
        command = ["ray", "job", "submit", "--submission-id", job, "--working-dir", "."]
        command += ["--no-wait", "--address", running.dashboard, "--", *self.command(more)]
        done = subprocess.run(
            command, cwd=ROOT, env=running.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]

    def wait(
        self, running: Loopback, is_reached: Callable[[Records], bool], job: str = "study"
    ) -> None:
        """Wait until the ledger shows something; a job that ends before that is an error."""
        limit = time.monotonic() + END_SECONDS
        while not is_reached(self.records()):
            state = running.get(f"/api/jobs/{job}")["status"]
            if state not in ("PENDING", "RUNNING") or time.monotonic() > limit:
                log = running.get(f"/api/jobs/{job}/logs")["logs"]
                raise AssertionError(f"the job is {state}:\n{log[-5000:]}")
            time.sleep(0.1)

    def result(self, running: Loopback) -> dict[str, Any]:
        """Wait for the end of the job; return what it printed last."""
        limit = time.monotonic() + END_SECONDS
        while (state := running.get("/api/jobs/study")["status"]) in ("PENDING", "RUNNING"):
            assert time.monotonic() < limit, running.get("/api/jobs/study/logs")["logs"][-5000:]
            time.sleep(0.5)
        log = running.get("/api/jobs/study/logs")["logs"]
        assert state == "SUCCEEDED", log[-5000:]
        found: dict[str, Any] = json.loads(log.strip().splitlines()[-1])
        return found

    def saved(self) -> Counter[str]:
        """How often each checkpoint was written, by trial and epoch."""
        name = re.compile(r"/trials/([^/]+)/checkpoints/(epoch-\d+)/checkpoint\.json")
        found = (name.search(path) for method, path in self.proxy.requests if method == "PUT")
        return Counter(f"{one[1]} {one[2]}" for one in found if one)


def kinds(records: Records) -> set[str]:
    return {one["kind"] for one in records}


def check(world: World, before: Records, found: dict[str, Any]) -> None:
    """Check that a study ended as if its head had not died."""
    records = world.records()
    assert records[: len(before)] == before
    assert found["status"] == "completed"
    trials = [one["trial_id"] for one in records if one["kind"] == "trial"]
    assert len(trials) == len(set(trials))
    searched = [name for name in trials if name.startswith("t")]
    assert [name[:4] for name in searched] == ["t000", "t001", "t002"]
    assert [one["kind"] for one in records].count("test") == 1
    assert [one["kind"] for one in records].count("registered") == 1
    again = {name: count - 1 for name, count in world.saved().items() if count > 1}
    of_trial = Counter(name.partition(" ")[0] for name in again)
    assert all(count == 1 for count in again.values()), again
    assert all(count <= 1 for count in of_trial.values()), again
    check_tracking(found, records)


def check_tracking(found: dict[str, Any], records: Records) -> None:
    """The second cluster's MLflow shows all of the study, the trials before the death included."""
    file = found["tracking_uri"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(file)) as store:

        def rows(query: str) -> list[tuple[Any, ...]]:
            return store.execute(query).fetchall()

        assert rows("SELECT version FROM model_versions") == [(1,)]
        named = {name for (name,) in rows("SELECT value FROM tags WHERE key = 'trial_id'")}
        trials = {one["trial_id"] for one in records if one["kind"] == "trial"}
        assert named == trials
        (count,) = rows("SELECT count(*) FROM metrics WHERE key = 'val_loss' AND step > 0")[0]
        assert count >= len([one for one in records if one["kind"] == "epoch"])
