"""The command ``audio-tuner ui``: a study in MLflow's web pages, with the server it needs."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import click

from pipelines.command import Command
from pipelines.plain_text import echo, redact

LOOPBACK = "127.0.0.1"
USUAL_PORT = 5000  # of `mlflow ui`
START_SECONDS = 60.0
END_SECONDS = 5.0
# One process, and none for jobs that nobody asks for here: 0.5 GB of memory instead of 3.
LIGHT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


@click.command(cls=Command)
@click.argument("study", required=False)
@click.option(
    "--storage", default="results", show_default=True, metavar="DIR",
    help="Folder of the studies.",
)  # fmt: skip
@click.option(
    "--tracking-uri", metavar="U", help="MLflow; default: MLFLOW_TRACKING_URI, else DIR."
)
@click.option(
    "--port", type=click.IntRange(1, 65535), metavar="P",
    help=f"Port on this machine; default: {USUAL_PORT}, or a free one.",
)  # fmt: skip
@click.option("--no-browser", is_flag=True, help="Print the address, and open nothing.")
def main(
    study: str | None, storage: str, tracking_uri: str | None, port: int | None, no_browser: bool
) -> None:
    """Open STUDY in MLflow, or the newest study; Ctrl-C ends the server.

    If the studies are on a tracking server, only its page is opened.
    """
    from pipelines.errors import UserError
    from tuner.tracking.store import address_of, is_server

    signal.signal(signal.SIGTERM, _terminated)
    try:
        study, place = placed(study, storage)
        uri = address_of(place, tracking_uri)
        if study and not is_server(uri):
            _draw(study, place)
        if is_server(uri):
            _show(page_of(uri, study, uri, place), no_browser)
            return
        port = free_port(port)
        page = page_of(uri, study, f"http://{LOOPBACK}:{port}", place)
        with serving(uri, port) as server:
            _show(page, no_browser)
            echo("MLflow answers there until you press Ctrl-C", err=True)
            server.wait()
    except UserError as error:
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        pass  # the way to end it


def _draw(study: str, storage: str | Path) -> None:
    """Draw a study of a bucket into the store of this machine, which may never have seen it."""
    from pipelines.storage import Folder
    from tuner.errors import UsageError
    from tuner.report.__main__ import write

    if not (place := Folder.at(storage)).is_remote:
        return
    try:
        write(str(place / "studies" / study), str(place), is_replay=True)
    except UsageError as error:  # it runs, perhaps on another machine
        echo(f"{error}; what is shown may be behind", err=True)


def _terminated(*_: object) -> NoReturn:
    sys.exit(143)


def placed(study: str | None, storage: str | Path) -> tuple[str | None, str | Path]:
    """Return the name and the storage of a study that is given by its name or its folder.

    Raises:
        UsageError: It is a folder without a study.
    """
    from tuner.errors import UsageError
    from tuner.ledger.locate import study_folder

    if study is None:
        return None, storage
    try:
        folder = study_folder(study, storage)
    except UsageError:
        if Path(study).name != study:
            raise
        return study, storage  # a tracking server has studies of other machines
    return folder.name, folder.parent.parent.address


def page_of(uri: str, study: str | None, server: str, storage: str | Path) -> str:
    """Return the address of a study's page on a server that shows a store.

    Args:
        uri: The store.
        study: Name of the study; None for the newest one.
        server: Address of the server.
        storage: Folder of the studies, whose ledgers name the saved views.

    Raises:
        UsageError: There is no such study; names those that there are.
        TrackingError: The store cannot be used.
    """
    from pipelines.storage import Folder
    from tuner.errors import UsageError
    from tuner.ledger import journal
    from tuner.ledger.journal import StudyPaths
    from tuner.tracking import store
    from tuner.tracking.shown import study_id
    from tuner.tracking.views import view_key

    file = store.database_file(uri)
    if file and not file.exists():
        raise UsageError(f"no studies: there is no {file}; run one, or write --storage DIR")
    client = store.connect(uri)
    with store.explained(uri):
        found: dict[str, Any] = {
            one.name: one
            for one in client.search_experiments(order_by=["creation_time DESC"])
            if one.experiment_id != "0"  # MLflow's own, which no study uses
        }
    name = study or next(iter(found), "")
    if name not in found:
        has = f"it has {', '.join(sorted(found))}" if found else "it has none"
        raise UsageError(f"no study {name!r} in {redact(uri)}; {has}")
    began = journal.first_record(StudyPaths(Folder.at(storage), name, "").folder)
    view = view_key(study_id(began)) if began else ""
    return store.how_to_open(server, found[name].experiment_id, view)


def free_port(wanted: int | None) -> int:
    """Return the wanted port if it is free; without one, the usual port or any free one.

    Raises:
        UsageError: The wanted port is busy.
    """
    from tuner.errors import UsageError

    for port in (wanted,) if wanted else (USUAL_PORT, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return int(probe.getsockname()[1])
    raise UsageError(f"port {wanted} is busy; choose another --port, or leave it out")


@contextlib.contextmanager
def serving(uri: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run MLflow's server for a store on loopback, and end it with all its processes.

    Raises:
        TrackingError: It does not start; shows its last words.
    """
    from tuner.errors import TrackingError

    words = ["server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    # The address may hold a password, which a command line would show to everyone.
    environment = {**os.environ, **LIGHT, "MLFLOW_BACKEND_STORE_URI": uri}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others
        )  # fmt: skip
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    last = log.read().decode(errors="replace").strip().splitlines()[-1:]
                    raise TrackingError(f"MLflow does not start: {redact(''.join(last))}")
                time.sleep(0.2)
            yield process
        finally:
            _end(process)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)  # past any proxy
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)


def _show(page: str, no_browser: bool) -> None:
    """Print an address, and open it if there is a screen."""
    echo(page)
    has_screen = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if has_screen and not no_browser:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(page)


if __name__ == "__main__":
    main()
