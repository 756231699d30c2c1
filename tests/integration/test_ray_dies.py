"""A Ray that dies or falls silent: a sentence and the line that continues, or one more start."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.test_signals import LONG, MOMENTS, SPACE, start
from tests.loopback import cluster
from tests.pipelines.test_interruption import ROOT, marked, started

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

# What a user must not see: tracebacks, and lines of Ray's compiled part and of its threads.
NOISE = re.compile(r"Traceback|\[\d{4}-\d\d-\d\d [^\]]* [EWFC] \d+|\(raylet\)|core_worker|\*\*\*")
DEATHS = [
    ("gcs_server", signal.SIGKILL),
    ("raylet", signal.SIGKILL),
    ("gcs_server", signal.SIGSTOP),
]
LIMIT_SECONDS = 15.0

# Waits in compiled code for a task that never ends, and prints the ids of Ray's two processes.
COMMAND = """
import time
from pipelines.build import ray_start
from pipelines.interruption import Interruption
with Interruption(lambda: "to continue: this") as stop:
    stop.last_acts.append(ray_start.end_at_once)
    ray_start.connect("local", num_cpus=1, include_dashboard=False, on_loss=stop.fail)
    import ray
    with ray_start.in_words():
        never = ray.remote(lambda: time.sleep(1000)).remote()
        print("ready", flush=True)
        ray.get(never)
"""
# As in a notebook: no command around it that could start again or end the process.
NOTEBOOK = """
import time
from pipelines.build import ray_start
from pipelines.errors import ClusterLostError
for number in range(2):
    ray_start.connect("local", num_cpus=1, include_dashboard=False)
    import ray
    try:
        with ray_start.in_words():
            never = ray.remote(lambda: time.sleep(1000)).remote()
            print("ready", flush=True)
            ray.get(never)
    except ClusterLostError as error:
        print("lost:", error, flush=True)
    ray_start.disconnect()
"""


# The loss is an error in the notebook, in which the same call goes on.
STUDY = """
import sys
from pipelines.errors import ClusterLostError
from tuner import run_study
for number in range(2):
    try:
        found = run_study(*sys.argv[1:3], storage=sys.argv[3])
        print("done", found.status)
    except ClusterLostError as error:
        print("lost:", error, flush=True)
"""


def ids(mark: str, name: str) -> list[int]:
    """Return the processes of a mark that run a program of a name."""
    found = []
    for number in marked(mark):
        file = Path(f"/proc/{number}/cmdline")
        words = file.read_bytes().split(b"\0") if file.exists() else [b""]
        if Path(words[0].decode()).name == name:
            found.append(number)
    return found


def decodes(mark: str) -> bool:
    """Return True if a worker of Ray Data has started."""
    files = [Path(f"/proc/{number}/cmdline") for number in marked(mark)]
    return any(b"ray::Map" in file.read_bytes() for file in files if file.exists())


def wait_for(is_there: Callable[[], object], process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 150
    while not is_there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.05)


def nothing_left(mark: str, seconds: float = LIMIT_SECONDS) -> bool:
    limit = time.monotonic() + seconds
    while marked(mark) and time.monotonic() < limit:
        time.sleep(0.1)
    return not marked(mark)


def test_a_command_that_waits_for_a_dead_ray_ends_with_a_sentence(tmp_path: Path) -> None:
    process = started(["-c", COMMAND], MARK=str(tmp_path))
    (raylet,) = ids(str(tmp_path), "raylet")
    killed = time.monotonic()
    os.kill(raylet, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - killed < LIMIT_SECONDS
    assert (process.returncode, out) == (1, "")
    sentence, advice = err.splitlines()
    assert re.fullmatch(r"error: Ray's raylet died \(SIGKILL\); its logs: /\S+/logs", sentence)
    assert advice == "to continue: this"
    assert nothing_left(str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 1.0])
@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_ray_that_dies_while_it_starts_is_started_again(
    name: str, seconds: float, tmp_path: Path
) -> None:
    mark = str(tmp_path)
    again = COMMAND.replace("    stop.last", "    stop.tries_again = True\n    stop.last")
    process = started(["-c", again], lambda: ids(mark, name) != [], MARK=mark)
    time.sleep(seconds)
    killed = time.monotonic()
    os.kill(ids(mark, name)[0], signal.SIGKILL)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert time.monotonic() - killed < LIMIT_SECONDS
    process.terminate()
    _, err = process.communicate(timeout=30)
    died = f"Ray's {words_for(name)} died (SIGKILL); trying once more"
    assert err.splitlines() == [died, "to continue: this"]
    assert nothing_left(mark)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), DEATHS)
def test_a_notebook_gets_an_error_and_can_connect_again(
    name: str, number: signal.Signals, tmp_path: Path
) -> None:
    process = started(["-c", NOTEBOOK], MARK=str(tmp_path))
    assert process.stdout is not None
    for line in ("ready\n", None):
        killed = time.monotonic()
        os.kill(ids(str(tmp_path), name)[0], number)
        assert process.stdout.readline().startswith(f"lost: Ray's {words_for(name)}")
        assert time.monotonic() - killed < LIMIT_SECONDS
        if line:
            assert process.stdout.readline() == line
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert nothing_left(str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), DEATHS)
def test_a_study_from_python_goes_on_in_the_same_process(
    name: str, number: signal.Signals, tones: Path, tmp_path: Path
) -> None:
    space, mark = tmp_path / "small.yaml", str(tmp_path)
    space.write_text(SPACE.replace("epochs: 4", "epochs: 60"))
    ledger = tmp_path / "studies" / "small" / "ledger.jsonl"
    process = started(
        ["-c", STUDY, str(space), str(tones), mark],
        lambda: ledger.exists() and ledger.read_bytes().count(b'"kind":"epoch"') > 2,
        MARK=mark, RAY_ADDRESS="", MLFLOW_TRACKING_URI="",
    )  # fmt: skip
    os.kill(ids(mark, name)[0], number)
    out, err = process.communicate(timeout=150)
    lost, done = out.splitlines()
    assert lost.startswith(f"lost: Ray's {words_for(name)}")
    assert done == "done completed"
    assert (process.returncode, NOISE.search(err)) == (0, None)
    assert nothing_left(mark)


def words_for(name: str) -> str:
    return {"gcs_server": "control store", "raylet": "raylet"}[name]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), DEATHS)
@pytest.mark.parametrize("moment", ["features", "search", "confirm"])
def test_a_study_goes_on_by_itself_once(
    moment: str, name: str, number: signal.Signals, tones: Path, tmp_path: Path
) -> None:
    is_there, _, more = MOMENTS[moment]
    run = start(
        tones, tmp_path, *(["--set", "train.epochs=60", *LONG[2:]] if more else []), "--json"
    )
    mark = str(run.storage)
    # MOMENTS' features begin while Ray still starts, and then it is the start that is tried again.
    wait_for(lambda: decodes(mark) if moment == "features" else is_there(run), run.process)
    os.kill(ids(mark, name)[0], number)
    out, err = run.process.communicate(timeout=150)
    assert run.process.returncode in (0, 3), err
    assert err.count("; trying once more") == err.count(f"Ray's {words_for(name)}") == 1
    assert not NOISE.search(out + err)
    found = json.loads(out)
    assert found["status"] == "completed"
    assert set(run.states()) == {"FINISHED"}
    ended = [json.loads(line.partition(b" ")[2]) for line in run.ledger.splitlines()]
    ends = [one["trial_id"] for one in ended if one["kind"] == "trial_end"]
    assert len(ends) == len(set(ends)) == 4  # with the run that shows the model
    assert nothing_left(mark)


@pytest.mark.slow
def test_a_second_death_ends_the_study_which_can_be_continued(tones: Path, tmp_path: Path) -> None:
    run = start(tones, tmp_path, *LONG)
    mark = str(run.storage)
    wait_for(lambda: run.ledger.count(b'"kind":"epoch"') > 2, run.process)
    first = ids(mark, "gcs_server")
    os.kill(first[0], signal.SIGKILL)
    wait_for(lambda: ids(mark, "gcs_server") not in ([], first), run.process)
    epochs = run.ledger.count(b'"kind":"epoch"')
    wait_for(lambda: run.ledger.count(b'"kind":"epoch"') > epochs + 1, run.process)
    killed = time.monotonic()
    os.kill(ids(mark, "raylet")[0], signal.SIGKILL)
    _, err = run.process.communicate(timeout=60)
    assert time.monotonic() - killed < LIMIT_SECONDS
    assert run.process.returncode == 1
    assert not NOISE.search(err)
    *_, sentence, advice, command = err.splitlines()
    assert sentence.startswith("error: Ray's raylet died (SIGKILL)")
    assert advice == "interrupted; finished work is kept. To continue:"
    assert command.endswith(" --resume")
    assert set(run.states()) == {"KILLED"}
    assert nothing_left(mark)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), DEATHS)
def test_a_build_goes_on_by_itself(
    name: str, number: signal.Signals, tones: Path, tmp_path: Path
) -> None:
    words = ["-m", "pipelines.build", str(tones), "--out", str(tmp_path / "sets"), "--json"]
    process = started(
        [*words, "--clip-seconds", "0.5", "--sample-rate", "16000"],
        lambda: decodes(mark),
        MARK=(mark := str(tmp_path)), RAY_ADDRESS="",
    )  # fmt: skip
    os.kill(ids(mark, name)[0], number)
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    assert err.count(f"Ray's {words_for(name)}") == err.count("; trying once more") == 1
    assert not NOISE.search(out + err)
    assert json.loads(out)["tracks"]["listed"] == 36
    assert nothing_left(mark)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), DEATHS)
def test_the_death_of_a_joined_cluster_ends_the_study(
    name: str, number: signal.Signals, tones: Path, tmp_path: Path
) -> None:
    with cluster(tmp_path, num_nodes=1) as running:
        theirs = running.environment
        run = start(tones, tmp_path, "--address", running.address, *LONG, **theirs)
        wait_for(lambda: run.ledger.count(b'"kind":"epoch"') > 2, run.process)
        for process in running.processes():
            file = Path(f"/proc/{process}/cmdline")
            if file.exists() and file.read_bytes().split(b"\0")[0].endswith(b"/" + name.encode()):
                os.kill(process, number)
        killed = time.monotonic()
        _, err = run.process.communicate(timeout=60)
        assert time.monotonic() - killed < LIMIT_SECONDS
    assert run.process.returncode == 1
    assert not NOISE.search(err)
    *_, sentence, _advice, command = err.splitlines()
    # A raylet ends when its control store does, and may be missed first.
    missed = "raylet" if name == "raylet" else "(control store|raylet)"
    assert re.fullmatch(rf"error: Ray's {missed} at \S+:\d+ no longer answers", sentence)
    assert command.endswith(" --resume")
    assert set(run.states()) == {"KILLED"}


@pytest.mark.slow
def test_predictions_on_a_ray_that_dies_start_again_or_say_so(tones: Path, tmp_path: Path) -> None:
    run = start(tones, tmp_path)
    run.process.communicate(timeout=200)
    mark = str(tmp_path / "predict")
    words = ["-m", "tuner.predict", "models:/small/1", str(tones.parent), "--storage"]
    words += [str(run.storage), "--ray", "--json"]
    for given, listed in ((words, None), ([*words[:3], "-", *words[4:]], f"{tones.parent}\n")):
        process = subprocess.Popen(
            [sys.executable, *given], cwd=ROOT, text=True, stdin=subprocess.PIPE,
            env={**os.environ, "MARK": mark, "RAY_ADDRESS": ""}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        if listed:
            assert process.stdin is not None
            process.stdin.write(listed)
            process.stdin.close()
            process.stdin = None
        wait_for(lambda: decodes(mark), process)
        os.kill(ids(mark, "raylet")[0], signal.SIGKILL)
        out, err = process.communicate(timeout=100)
        assert not NOISE.search(out + err)
        if listed:
            assert (process.returncode, out) == (1, "")
            assert "error: Ray's raylet died (SIGKILL)" in err
        else:
            assert process.returncode == 0, err
            assert err.count("; trying once more") == 1
            assert len({json.loads(line)["path"] for line in out.splitlines()}) == 36
        assert nothing_left(mark)
