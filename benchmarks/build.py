"""Time to build a feature set: ours against plain processes and librosa.

All variants read the same files from the page cache with two processes of one thread each, and
write the same rows. Ray starts before the clock, as in a study; the start of worker
processes is timed for all variants.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import pyarrow
import pyarrow.parquet

from benchmarks.paired import compare, machine, pin_threads, summary
from benchmarks.recordings import write_recordings
from pipelines.build.building import build_sets
from pipelines.build.decode import decode_batch
from pipelines.build.options import BuildOptions
from pipelines.build.ray_pass import local_ray
from pipelines.features import FeatureSpec
from pipelines.settings import ClipSpec, SplitSpec
from pipelines.sources.catalog import read_catalog

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipelines.build.decode import DecodeBatch, Verdicts
    from pipelines.build.tasks import DecodeJob
    from pipelines.sources.tracks import Catalog

CLIP, FEATURE, SPLIT = ClipSpec(clips_per_track=10), FeatureSpec(), SplitSpec()
NUM_PROCESSES = 2
PACKAGES = ("librosa", "numpy", "pyarrow", "ray", "scipy", "soundfile", "soxr")


def ours(catalog: Catalog, out: Path) -> None:
    """Run the whole build: digests, decode, features, duplicates, splits, Parquet."""
    shutil.rmtree(out, ignore_errors=True)
    build_sets(catalog, out, [(CLIP, FEATURE)], SPLIT)


def plain(catalog: Catalog, out: Path) -> None:
    """Build from the same batches with a process pool instead of Ray Data."""
    shutil.rmtree(out, ignore_errors=True)
    build_sets(catalog, out, [(CLIP, FEATURE)], SPLIT, BuildOptions(decode=decode_in_pool))


def decode_in_pool(
    job: DecodeJob, batches: Sequence[DecodeBatch]
) -> Iterator[tuple[DecodeBatch, Verdicts]]:
    """Decode batches without a cluster."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(NUM_PROCESSES, mp_context=spawn) as pool:
        yield from zip(batches, pool.map(partial(decode_batch, job=job), batches), strict=True)


def with_librosa(catalog: Catalog, out: Path) -> None:
    """Write features to Parquet as a notebook would: librosa on each file, two processes."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    paths = [str(Path(catalog.root) / track.path) for track in catalog.tracks]
    chunks = [paths[start : start + 32] for start in range(0, len(paths), 32)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(NUM_PROCESSES, mp_context=spawn) as pool:
        list(pool.map(partial(_librosa_chunk, str(out)), range(len(chunks)), chunks))


def _librosa_chunk(out: str, number: int, paths: list[str]) -> None:
    import librosa

    length = round(CLIP.clip_seconds * FEATURE.sample_rate)
    rows, names = [], []
    for path in paths:
        samples, _ = librosa.load(path, sr=FEATURE.sample_rate)
        for start in np.linspace(0, len(samples) - length, 10).astype(int):
            power = librosa.feature.melspectrogram(
                y=samples[start : start + length],
                sr=FEATURE.sample_rate,
                n_fft=FEATURE.n_fft,
                hop_length=FEATURE.hop_length,
                n_mels=FEATURE.n_mels,
                htk=True,
                norm=None,
            )
            rows.append(librosa.power_to_db(power, amin=1e-4, top_db=None).astype(np.float16))
            names.append(path)
    stacked = np.stack(rows)
    tensor = pyarrow.FixedShapeTensorArray.from_numpy_ndarray(stacked)
    table = pyarrow.table({"path": names, "features": tensor})
    pyarrow.parquet.write_table(
        table, Path(out) / f"{number:05d}.parquet", compression="zstd", compression_level=1
    )


def unchanged(catalog_of: Path, out: Path) -> None:
    """Rebuild an unchanged data set: read the catalog, compare sizes and modification times."""
    if not build_sets(read_catalog(catalog_of), out, [(CLIP, FEATURE)], SPLIT)[0].reused:
        raise AssertionError("the feature set was built again")


@click.command()
@click.option("--files", default=600, show_default=True, help="Number of recordings.")
@click.option("--seconds", default=30.0, show_default=True, help="Length of each recording.")
@click.option("--suffix", default="wav", show_default=True, help="wav, mp3, flac or ogg.")
@click.option("--rounds", default=3, show_default=True, help="Interleaved rounds.")
@click.option("--folder", type=click.Path(path_type=Path), help="Folder for the recordings.")
def main(files: int, seconds: float, suffix: str, rounds: int, folder: Path | None) -> None:
    """Measure all variants and print paired ratios as JSON."""
    pin_threads()
    with tempfile.TemporaryDirectory() as scratch:
        recordings = (folder or Path(scratch)) / f"{suffix}-{files}-{seconds:g}"
        write_recordings(recordings, files, seconds, suffix)
        catalog = read_catalog(recordings)
        out = Path(scratch) / "out"
        variants = {
            "build": partial(ours, catalog, out / "ours"),
            "unchanged": partial(unchanged, recordings, out / "ours"),
            "plain processes": partial(plain, catalog, out / "plain"),
            "librosa": partial(with_librosa, catalog, out / "librosa"),
        }
        with local_ray():
            measured = compare(variants, rounds, warmup=1)
    ratios = [
        ("librosa", "build"),
        ("plain processes", "build"),
        ("unchanged", "build"),
    ]
    what = {"files": files, "seconds": seconds, "suffix": suffix}
    print(
        json.dumps({"machine": machine(PACKAGES), **what, **summary(measured, ratios)}, indent=1)
    )


if __name__ == "__main__":
    main()
