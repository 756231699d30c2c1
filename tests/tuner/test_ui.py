"""``audio-tuner ui``: the address of a study, and a server that ends with the command."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.tuner.studies import finished_study, write_study
from tuner.errors import UsageError
from tuner.tracking.mlflow_tracker import open_tracker
from tuner.ui import free_port, main, placed


def test_without_studies_nothing_is_started_or_made(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["--storage", str(tmp_path)], env={"MLFLOW_TRACKING_URI": ""})
    assert found.exit_code == 2
    assert "error: no studies: there is no" in found.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_of_a_study_gives_its_storage(tmp_path: Path, monkeypatch) -> None:
    folder, there = write_study(tmp_path / "other"), tmp_path / "results"
    write_study(there)
    monkeypatch.chdir(tmp_path)
    for given in (folder, "other/studies/quick"):
        assert placed(str(given), Path("results")) == ("quick", tmp_path / "other")
    assert placed("quick", Path("results")) == ("quick", there)
    for name in (None, "of-another-machine"):
        assert placed(name, Path("results")) == (name, Path("results"))
    with pytest.raises(
        UsageError, match=r"no study 'nowhere/studies/quick': studies under .*quick"
    ):
        placed("nowhere/studies/quick", Path("results"))


def test_a_busy_port_is_refused_if_it_was_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} is busy"):
            free_port(port)
        assert free_port(None) != port


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_printed_address_answers_until_the_command_ends(
    number: signal.Signals, tmp_path: Path
) -> None:
    with contextlib.closing(open_tracker(None, tmp_path, "quick")) as tracker:
        for record in finished_study():
            tracker.record(record)
        tracker.flush()
        page = tracker.how_to_open.rpartition("/#/")[2].partition("/runs")[0]
    write_study(tmp_path)
    words = ["--storage", str(tmp_path), "--port", str(free_port(0))]
    absent = CliRunner().invoke(main, ["slow", *words], env={"MLFLOW_TRACKING_URI": ""})
    assert absent.exit_code == 2
    assert "no study 'slow'" in absent.stderr
    assert "it has quick" in absent.stderr
    variables = {
        k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "DISPLAY")
    }
    # A program in the place of the browser.
    variables["BROWSER"] = f"{sys.executable} -c \"open('{tmp_path}/opened', 'w')\" %s"
    with subprocess.Popen(
        [sys.executable, "-m", "tuner.ui", str(tmp_path / "studies" / "quick"), *words],
        stdout=subprocess.PIPE, text=True, env=variables,
    ) as command:  # fmt: skip
        try:
            assert command.stdout is not None
            address = command.stdout.readline().strip()
            server, _, shown = address.partition("/#/")
            assert shown.startswith(page)  # the experiment
            with urllib.request.urlopen(f"{server}/health", timeout=10) as answer:
                assert answer.status == 200
            command.send_signal(number)
            assert command.wait(20) == {signal.SIGINT: 0, signal.SIGTERM: 143}[number]
        finally:
            command.kill()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{server}/health", timeout=10)
    assert (tmp_path / "opened").is_file()
