"""The command line: every check, a line each."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tuner.doctor.check import Check


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--storage",
    type=click.Path(path_type=Path),
    default="results",
    show_default=True,
    metavar="DIR",
    help="Where results will be kept.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def main(storage: Path, as_json: bool) -> None:
    """Say what this machine lacks for a study; exit code 1 when something does not work.

    \b
    python -m tuner.doctor
    python -m tuner.doctor --storage /mnt/shared/results --json
    """  # noqa: D301 - click reads the control character
    found = []
    for check in all_checks(storage, os.environ):
        found.append(check)
        if not as_json:
            click.echo(check.line())
    healthy = all(check.status != "FAIL" for check in found)
    if as_json:
        click.echo(json.dumps({"ok": healthy, "checks": [asdict(check) for check in found]}))
    sys.exit(0 if healthy else 1)


def all_checks(storage: Path, environment: Mapping[str, str]) -> Iterator[Check]:
    """Every check, each done when it is asked for."""
    from tuner.doctor import machine, services, software, torch_family
    from tuner.training.arrays import cache_folder

    yield software.check_packages()
    answers = torch_family.probe()
    constraints = Path(__file__).resolve().parents[2] / "constraints.txt"
    yield torch_family.check_torch(answers, constraints)
    yield torch_family.check_gpu(answers)
    yield torch_family.check_bf16(answers)
    yield software.check_audio()
    yield software.check_m4a()
    yield services.check_ray(environment)
    yield services.check_token(environment)
    yield services.check_tracking(environment.get("MLFLOW_TRACKING_URI"), storage)
    yield machine.check_room("storage", storage)
    yield machine.check_room("array cache", cache_folder())
    yield machine.check_shared_memory()
    remedy = "nothing to do: Ray takes the next free port, and a study does not need this one"
    yield machine.check_port(8265, "Ray's dashboard", remedy)
    remedy = "if it is not MLflow's, open it with `mlflow ui --port 5001`"
    yield machine.check_port(5000, "the MLflow UI", remedy)


if __name__ == "__main__":
    main()
