"""The lines of the guide page on serving, against a real server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile

from benchmarks.serving import load
from tests.loopback import free_ports
from tests.tuner.studies import Script
from tests.tuner.test_registry import FACTS, make_bundle
from tuner.prediction.answer import predict_file
from tuner.tracking.mlflow_tracker import open_tracker
from tuner.tracking.registry import register
from tuner.training.exported import load_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a registered model in ``results`` and a song."""
    folder = tmp_path_factory.mktemp("work")
    t = np.arange(3 * 22050) / 22050
    soundfile.write(folder / "song.mp3", 0.3 * np.sin(2 * np.pi * 440 * t * (1 + t)), 22050)
    make_bundle(folder / "model")
    tracker = open_tracker(None, folder / "results", "quick")
    script = Script()
    script.study()
    script.whole_trial("t0", 0, 0.8)
    for record in script.records:
        tracker.record(record)
    run = tracker.run_id("t0")
    tracker.close()
    register(tracker.uri, run, folder / "model", "demo", FACTS)
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    return folder


def lines(start: str) -> list[str]:
    """Return the blocks of the page whose first line starts so."""
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in blocks if block.startswith(start)]


def environment() -> dict[str, str]:
    """Return an environment that is not activated."""
    places = os.environ["PATH"].split(os.pathsep)
    kept = [place for place in places if not (Path(place) / "uvicorn").exists()]
    python_path = str(PAGE.parents[1])
    return {**os.environ, "PATH": os.pathsep.join(kept), "PYTHONPATH": python_path}


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[str]:
    """Port of a server that was started with the line of the page."""
    port = str(free_ports(1)[0])
    (block,) = lines("export MLFLOW_TRACKING_URI")
    command = block.replace("5001", port).replace('" mlflow', '" exec mlflow')
    server = subprocess.Popen(
        ["bash", "-c", command], cwd=folder, env=environment(), start_new_session=True
    )
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end and server.poll() is None:
            try:
                requests.get(f"http://127.0.0.1:{port}/ping", timeout=1)
                break
            except requests.ConnectionError:
                time.sleep(0.2)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def answers(command: str, folder: Path, port: str) -> dict[str, object]:
    done = subprocess.run(
        ["bash", "-c", command.replace("5001", port)],
        cwd=folder, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    (answer,) = json.loads(done.stdout)["predictions"]
    return dict(answer)


def test_the_lines_of_the_page_are_answered(folder: Path, port: str) -> None:
    (by_bytes,) = lines("echo")
    wanted = predict_file(folder / "song.mp3", load_bundle(folder / "model"))
    found = answers(by_bytes, folder, port)
    assert found["probabilities"] == wanted.probabilities
    assert found["label"] == wanted.label
    (by_samples,) = lines("curl")
    assert str(answers(by_samples, folder, port)["error"]).startswith("E_TOO_SHORT")
    (by_path,) = lines("TUNER_SERVE_ROOT")
    asked = by_path.partition("\n")[2]
    assert "this server reads no paths" in str(answers(asked, folder, port)["error"])


def test_no_request_is_lost_under_load(folder: Path, port: str) -> None:
    found = load(f"http://127.0.0.1:{port}", (folder / "song.mp3").read_bytes(), 200, 8)
    assert (found["lost"], found["different_answers"]) == (0, 1)
    assert found["p95_seconds"] < 5
