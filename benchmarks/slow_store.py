"""What a slow object store costs training: `python -m benchmarks.slow_store`.

The same trial is trained with its checkpoints on the disk of this machine, and in a bucket behind
a line of 50 ms and 5 MB/s. Everything that the trial does in the store is in the time: reading its
specification, looking for checkpoints, and waiting for the last one to arrive.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch

from benchmarks.paired import compare, machine
from pipelines.build.building import build_sets
from pipelines.build.decode import decode_here
from pipelines.build.options import BuildOptions
from pipelines.demo import write_demo
from pipelines.sources.catalog import read_catalog
from pipelines.storage import Folder
from tests.object_store import BUCKET, Proxy, s3_server, variables
from tuner.config import loads
from tuner.training.feed import Alone
from tuner.trials.assembly import TrialSpec
from tuner.trials.trial import train

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

DELAY_SECONDS, BYTES_PER_SECOND = 0.05, 5e6
SPACE = """
name: s
features: {{kind: logmel, n_mels: 64}}
model: {{name: {model}}}
train: {{epochs: {epochs}, batch_size: 32}}
"""


def serve(answer: Connection) -> None:
    """Run the store, until the other side is gone."""
    with s3_server() as server:
        proxy = Proxy(server)
        proxy.delay_seconds, proxy.bytes_per_second = DELAY_SECONDS, BYTES_PER_SECOND
        answer.send(proxy.address)
        with contextlib.suppress(EOFError):
            answer.recv()


@contextlib.contextmanager
def slow_server() -> Iterator[str]:
    """Start the store in a process of its own; yield its address."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


def spec_of(folder: Path, text: str) -> TrialSpec:
    """Return a trial on the demo, which is written and built below a folder."""
    space, catalog = loads(text), read_catalog(write_demo(folder / "demo"))
    wanted, split = space.feature_variants(), space.template.data.split_spec
    here = BuildOptions(decode=decode_here)
    [built] = build_sets(catalog, folder / "features", wanted, split, here)
    return TrialSpec("t0", "search", 1, space.template, str(built.feature_set.folder))


@click.command()
@click.option("--model", default="cnn", show_default=True)
@click.option("--epochs", default=20, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(model: str, epochs: int, rounds: int) -> None:
    """Compare training with a slow bucket and with a disk."""
    torch.set_num_threads(1)  # the store has the other core
    with tempfile.TemporaryDirectory() as name, slow_server() as address:
        folder = Path(name)
        os.environ.update(variables(address), TUNER_CACHE=str(folder / "cache"))
        spec, counts = spec_of(folder, SPACE.format(model=model, epochs=epochs)), [0]

        def run(storage: Folder) -> None:
            counts[0] += 1
            study = storage / str(counts[0])
            spec.write(study)
            reports = list(train(study, TrialSpec.read(study, "t0"), Alone(torch.device("cpu"))))
            assert len(reports) == epochs

        bucket = Folder.at(f"s3://{BUCKET}/studies")
        rounds_of = compare(
            {"disk": lambda: run(Folder(folder / "disk")), "bucket": lambda: run(bucket)}, rounds
        )
        sizes = [p.stat().st_size for p in (folder / "disk").glob("1/trials/t0/checkpoints/*/*")]
        epochs_there = len(list((folder / "disk").glob("1/trials/t0/checkpoints/*")))
        found: dict[str, Any] = {
            "model": model,
            "epochs": epochs,
            "checkpoint_mb": round(sum(sizes) / max(1, epochs_there) / 1e6, 1),
            "median_ms": rounds_of.median_ms(),
            "bucket/disk": asdict(rounds_of.ratio("bucket", of="disk")),
            "machine": machine(("torch", "obstore")),
        }
    click.echo(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
