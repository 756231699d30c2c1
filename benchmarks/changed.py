"""Seconds to rebuild a set after one file has changed: `python -m benchmarks.changed`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import numpy as np
import soundfile

from benchmarks.paired import machine
from benchmarks.recordings import write_recordings

PACKAGES = ("numpy", "pyarrow", "soundfile", "soxr")


def build(data: Path, out: Path, clips: int) -> float:
    """Run the command and return its seconds."""
    command = ["pipelines.build", str(data), "--out", str(out), "--clips-per-track", str(clips)]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
    return time.perf_counter() - started


@click.command()
@click.option("--files", default=5000, show_default=True, help="Number of recordings.")
@click.option("--seconds", default=3.0, show_default=True, help="Length of each.")
@click.option("--clips", default=1, show_default=True, help="Clips per recording.")
@click.option("--rounds", default=5, show_default=True, help="Changes, one file each.")
@click.option("--folder", type=click.Path(path_type=Path), help="Folder for the recordings.")
def main(files: int, seconds: float, clips: int, rounds: int, folder: Path | None) -> None:
    """Build a set, then change one file after the other; print the seconds as JSON."""
    with tempfile.TemporaryDirectory() as scratch:
        data, out = (folder or Path(scratch)) / f"wav-{files}-{seconds:g}", Path(scratch) / "out"
        write_recordings(data, files, seconds, "wav")
        cold = build(data, out, clips)
        unchanged = build(data, out, clips)
        times = []
        for path in sorted(data.rglob("*.wav"))[:: files // rounds][:rounds]:
            samples, rate_hz = soundfile.read(path)
            soundfile.write(path, np.roll(samples, 1000, axis=0), rate_hz)
            times.append(build(data, out, clips))
    found = {"cold": cold, "unchanged": unchanged, "changed": median(times), "worst": max(times)}
    rounded = {name: round(value, 2) for name, value in found.items()}
    what = {"files": files, "seconds": seconds, "clips": clips}
    print(json.dumps({"machine": machine(PACKAGES), **what, "took_s": rounded}, indent=1))


if __name__ == "__main__":
    main()
