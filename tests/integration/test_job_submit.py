"""The README's `ray job submit` line: a cluster of two nodes, a token, a bucket, a head that dies.

The two clusters share nothing but the bucket, which holds the audio too; each node has a cache of
its own.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bucket_world import Records, World, check, kinds
from tests.loopback import Loopback
from tests.object_store import KEYS, Proxy, variables

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

JOB = "study"


@dataclass(frozen=True)
class Submitted:
    """A job that has ended, on its cluster, after the head of another one died under it."""

    cluster: Loopback
    world: World
    before: Records
    found: dict[str, Any]


@pytest.fixture(scope="module")
def job(
    two_nodes: Loopback, object_store: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Submitted]:
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(object_store.address).items():
            patch.setenv(name, value)
        patch.setenv("TUNER_CACHE", str(folder / "cache of the test"))
        world = World.on(object_store, folder)
        with world.new_cluster() as first:
            world.submit(first)
            world.wait(first, lambda records: "epoch" in kinds(records))
            first.kill_node(0)
            before = world.records()
        assert "searched" not in kinds(before)
        world.submit(two_nodes)
        yield Submitted(two_nodes, world, before, world.result(two_nodes))


def test_the_same_line_goes_on_under_a_new_head(job: Submitted) -> None:
    check(job.world, job.before, job.found)


def test_job_succeeds_and_its_last_line_is_the_contract(job: Submitted) -> None:
    """The keys are those of the command line's contract, written out here."""
    state = job.cluster.get(f"/api/jobs/{JOB}")
    assert (state["status"], state["driver_exit_code"]) == ("SUCCEEDED", 0)
    log = job.cluster.get(f"/api/jobs/{JOB}/logs")["logs"]
    summary: dict[str, Any] = json.loads(log.strip().splitlines()[-1])
    expected = {
        "study", "status", "study_dir", "tracking_uri", "experiment", "parent_run_id", "features",
        "trials", "best", "confirm", "test", "leakage", "registered", "seconds",
    }  # fmt: skip
    assert expected <= summary.keys()
    inner = {
        "trials": {"total", "completed", "stopped_early", "failed", "interrupted"},
        "best": {"trial_id", "run_id", "config", "val"},
        "confirm": {"top", "seeds", "mean", "ci95", "refit"},
        "test": {"f1_macro", "accuracy", "ci95", "tracks", "clip_f1_macro"},
        "leakage": {
            "groups_shared",
            "exact_duplicates_shared",
            "near_duplicates_shared",
            "label_conflicts",
            "dropped",
            "clip_split",
            "passed",
        },
        "registered": {"name", "version", "alias", "reason"},
        "seconds": {"features", "search", "confirm", "total"},
    }
    for key, names in inner.items():
        assert names <= summary[key].keys(), key
    (feature_set,) = summary["features"]
    assert {"fingerprint", "path", "tracks", "clips"} <= feature_set.keys()
    # three search trials and one confirmation; twelve files, all sound
    trials = summary["trials"]
    assert (trials["total"], trials["failed"], trials["interrupted"]) == (4, 0, 0)
    assert trials["completed"] + trials["stopped_early"] == 4
    assert feature_set["tracks"] == {"listed": 12, "ok": 12, "flagged": 0, "quarantined": 0}
    assert summary["status"] == "completed"
    assert summary["study_dir"] == str(job.world.study)


def test_trials_ran_on_both_nodes(job: Submitted) -> None:
    """Ray's own record of its processes, by the name that Tune gives a trial's process."""
    actors = job.cluster.get("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
    trials = [actor for actor in actors if actor["repr_name"] == "run_in_process"]
    assert len({actor["node_id"] for actor in trials}) == 2


def test_no_answer_without_the_token(job: Submitted) -> None:
    for header in ({}, {"Authorization": "Bearer 0123456789abcdef"}):
        request = urllib.request.Request(job.cluster.dashboard + "/api/jobs/", headers=header)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.code in ((403,) if header else (401,))
        refused.value.close()


def test_the_code_was_sent_and_nothing_else(job: Submitted) -> None:
    """What the head unpacked, by Ray's folder for it."""
    packages = job.cluster.session / "runtime_resources" / "working_dir_files"
    (package,) = (folder for folder in packages.iterdir() if folder.is_dir())
    names = {entry.name for entry in package.iterdir()}
    assert {"tuner", "pipelines", "search_spaces"} <= names
    assert not names & {".venv", ".git", "tests", "results", "demo-data"}
    size = sum(file.stat().st_size for file in package.rglob("*") if file.suffix != ".pyc")
    assert size < 10e6


def test_the_keys_of_the_bucket_are_written_nowhere(job: Submitted) -> None:
    """Neither into it, nor into MLflow or the logs of the cluster, nor on a process's title."""
    canary = b"canary-0f3c"
    assert all(one.startswith(canary.decode()) for one in KEYS.values())
    storage = job.world.storage
    files = [path for path in storage.local().rglob("*") if path.is_file()]
    files += [path for path in job.cluster.session.resolve().rglob("*") if path.is_file()]
    files.append(Path(job.found["tracking_uri"].removeprefix("sqlite:///")))
    files += [Path(f"/proc/{pid}/cmdline") for pid in job.cluster.processes()]
    assert len(files) > 100
    for path in files:
        with suppress(FileNotFoundError):
            assert canary not in path.read_bytes(), path
