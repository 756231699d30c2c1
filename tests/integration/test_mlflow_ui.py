"""A study in MLflow's own web pages, in a real headless browser: trials are found and compared."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.loopback import free_ports
from tests.tuner.studies import finished_study
from tuner.tracking.mlflow_tracker import open_tracker

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
# Without the flags about networking, each start looks up hosts that have nothing to do with this.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PAGE_MS = 15_000  # of the browser's own clock, which runs ahead while it waits for answers
PAGE_TIMEOUT_SECONDS = 60.0
SERVER_TIMEOUT_SECONDS = 60.0

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="chromium is not installed"),
    pytest.mark.timeout(240),
]


class Study:
    """A tracked study: the ids of its runs, and the address of a server that shows them."""

    def __init__(self, storage: Path) -> None:
        with contextlib.closing(open_tracker(None, storage, "quick")) as tracker:
            for record in finished_study():
                tracker.record(record)
            tracker.flush()
            self.parent = tracker.parent_run_id
            self.trials = [tracker.run_id(name) for name in ("t0", "t1")]
            # The user sees a command, and the address to open after it.
            self.command, _, told = tracker.how_to_open.partition("  # then open ")
        self.runs = urllib.parse.urlsplit(told).fragment
        assert self.parent is not None
        assert None not in self.trials

    def page(self, path: str) -> str:
        """Where a page is in the part of the UI that is about training."""
        joint = "&" if "?" in path else "?"
        return f"{path}{joint}workflowType=machine_learning"


@contextlib.contextmanager
def ended_afterwards(process: subprocess.Popen) -> Iterator[subprocess.Popen]:
    """Ends a process with all that it started."""
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


@contextlib.contextmanager
def server(line: str, log: Path) -> Iterator[str]:
    """MLflow's UI on a free port of loopback; yields its address."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", *shlex.split(line)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {
        **os.environ,
        # Seven more processes for jobs that nobody asks for here.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    address = f"http://127.0.0.1:{port}"
    with (
        log.open("wb") as out,
        ended_afterwards(
            subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        ) as process,
    ):
        deadline = time.monotonic() + SERVER_TIMEOUT_SECONDS
        while not answers(f"{address}/health"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"no answer in time\n{log.read_text()}"
            time.sleep(0.3)
        yield address


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def words_of(url: str, profile: Path) -> str:
    """The text of a page once its scripts have run, without mark-up."""
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}"]
    command += [f"--virtual-time-budget={PAGE_MS}", "--dump-dom", url]
    with ended_afterwards(
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
    ) as browser:
        dom, _ = browser.communicate(timeout=PAGE_TIMEOUT_SECONDS)
    without_code = re.sub(r"<(script|style)\b.*?</\1>", " ", dom, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", without_code))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("storage"))


@pytest.fixture(scope="module")
def words(
    study: Study, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], str]]:
    """Reads a page of the UI as a person sees it."""
    with server(study.command, tmp_path_factory.mktemp("server") / "log") as address:
        # UI's choices are kept in the profile: each page is looked at as if it were the first
        yield lambda path: words_of(f"{address}/#{path}", tmp_path_factory.mktemp("profile"))


def test_the_printed_address_lists_the_runs_in_the_part_about_training(
    study: Study, words: Callable[[str], str]
) -> None:
    page = words(study.runs)
    assert re.search(r"\b8\s+matching runs", page)
    assert "quick" in page
    assert "Evaluation runs" not in page  # which is in the part for language models


def test_study_is_one_row_and_its_trials_are_listed_on_its_page(
    study: Study, words: Callable[[str], str]
) -> None:
    runs = words(study.runs)
    assert "quick" in runs
    # nested: children are shown below their parent once it is opened
    assert "search t0 cnn" not in runs

    page = words(study.page(f"/experiments/1/runs/{study.parent}"))
    assert "python -m tuner.run quick" in page
    _, _, children = page.partition("Child runs")
    for name in ("search t0 cnn", "search t1 resnet18", "confirm t1 seed 1 resnet18"):
        assert name in children
    for metric in ("best_so_far_val_f1_macro", "test_f1_macro", "confirmed_mean"):
        assert metric in page


def test_two_trials_are_compared_by_metrics_and_parameters(
    study: Study, words: Callable[[str], str]
) -> None:
    asked = {"runs": json.dumps(study.trials), "experiments": json.dumps(["1"])}
    page = words(study.page(f"/compare-runs?{urllib.parse.urlencode(asked)}"))
    assert "Comparing 2 Runs from 1 Experiment" in page
    for name in ("search t0 cnn", "search t1 resnet18"):
        assert name in page
    for row in ("best_val_f1_macro", "val_loss", "optim.lr"):
        assert row in page
