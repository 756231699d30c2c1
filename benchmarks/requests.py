"""Requests that a trial and its ledger send to a bucket: `python -m benchmarks.requests`.

Each epoch is given time to be sent, as epochs of minutes have, so these are the most that can be.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch

from benchmarks.slow_store import SPACE, spec_of
from pipelines.storage import Folder
from tests.object_store import BUCKET, Proxy, s3_server, variables
from tuner.training.feed import Alone
from tuner.trials.assembly import TrialSpec
from tuner.trials.trial import train

if TYPE_CHECKING:
    from collections.abc import Iterable

RECORDS = 640


def kinds(requests: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Count requests as stores bill them."""
    return dict(Counter("LIST" if "list-type" in path else verb for verb, path in requests))


@click.command()
@click.option("--epochs", default=8, show_default=True)
def main(epochs: int) -> None:
    """Count the requests of a trial of some epochs, and of a ledger."""
    with tempfile.TemporaryDirectory() as name, s3_server() as server:
        proxy = Proxy(server)
        os.environ.update(variables(proxy.address), TUNER_CACHE=f"{name}/cache")
        spec = spec_of(Path(name), SPACE.format(model="cnn", epochs=epochs))
        study = Folder.at(f"s3://{BUCKET}/study")
        spec.write(study)
        for _ in train(study, TrialSpec.read(study, "t0"), Alone(torch.device("cpu"))):
            time.sleep(1.0)
        time.sleep(1.0)
        of_trial = kinds(proxy.requests)
        proxy.requests.clear()
        log = study.open_log("ledger.jsonl")
        for _ in range(RECORDS):
            log.append(bytes(400))
        found = {"epochs": epochs, "trial": of_trial, "records": RECORDS}
        click.echo(json.dumps(found | {"ledger": kinds(proxy.requests)}, indent=2))


if __name__ == "__main__":
    main()
