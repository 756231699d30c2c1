"""The command line ``python -m tuner.doctor``: one line for each check."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.command import Command

if TYPE_CHECKING:
    from tuner.doctor import Check


@click.command(cls=Command)
@click.option(
    "--storage",
    default="results",
    show_default=True,
    metavar="DIR",
    help="Folder for the results.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def main(storage: str, as_json: bool) -> None:
    """Check that this machine can run a study; exit with 1 if something does not work.

    \b
    python -m tuner.doctor
    python -m tuner.doctor --storage /mnt/shared/results --json
    """  # noqa: D301 - click reads the control character
    from pipelines.plain_text import echo

    found = []
    for check in all_checks(storage, os.environ):
        found.append(check)
        if not as_json:
            echo(check.line())
    healthy = all(check.status != "FAIL" for check in found)
    if as_json:
        echo(json.dumps({"ok": healthy, "checks": [asdict(check) for check in found]}))
    sys.exit(0 if healthy else 1)


def all_checks(storage: str | Path, variables: Mapping[str, str]) -> Iterator[Check]:
    """Run the checks one by one."""
    from pipelines.storage import cache_folder
    from tuner.doctor import environment, software

    yield software.check_packages()
    findings = software.probe()
    constraints = Path(__file__).resolve().parents[2] / "constraints.txt"
    yield software.check_torch(findings, constraints)
    yield software.check_gpu(findings)
    yield software.check_bf16(findings)
    yield software.check_audio()
    yield software.check_m4a()
    yield software.check_decoder()
    yield environment.check_ray(variables)
    yield environment.check_token(variables)
    yield environment.check_tracking(variables.get("MLFLOW_TRACKING_URI"), storage)
    yield environment.check_storage(storage)
    yield environment.check_room("array cache", cache_folder())
    yield environment.check_ray_folder()
    yield environment.check_shared_memory()
    if variables.get("RAY_ADDRESS", "") in ("", "local"):
        yield environment.check_start()
    remedy = "if it is not MLflow's, open it with `mlflow ui --port 5001`"
    yield environment.check_port(5000, "the MLflow UI", remedy)


if __name__ == "__main__":
    main()
