"""Fixtures that several test files share: one real Ray, and a small real feature set."""

from __future__ import annotations

import csv
import functools
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from pipelines.errors import WeightsError
from pipelines.features.networks.fetch import Source
from tests.bucket_world import World
from tests.loopback import Loopback, cluster
from tests.object_store import Proxy, s3_server, variables

# One thread per process: the tests share two processors.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported, which stays."""
    gc.freeze()


@pytest.fixture(scope="session")
def local_ray(tmp_path_factory: pytest.TempPathFactory):
    """A cluster of its own with two processors, never a foreign one that happens to run."""
    from pipelines.build.ray_start import disconnect
    from tuner.trials.cluster import connect

    os.environ["TUNER_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield connect("local", num_cpus=2)
    disconnect()


@pytest.fixture(scope="session")
def object_store() -> Iterator[Proxy]:
    """An S3 server with an empty bucket, behind a proxy."""
    with s3_server() as server:
        proxy = Proxy(server)
        yield proxy
        proxy.close()


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> Iterator[World]:
    """A bucket of its own with audio, and the keys to it."""
    folder = tmp_path_factory.mktemp("world")
    with s3_server() as server:
        proxy = Proxy(server)
        for name, value in variables(proxy.address).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TUNER_CACHE", str(folder / "cache of the test"))
        yield World.on(proxy, folder)
        proxy.close()


@pytest.fixture(scope="session")
def two_nodes(tmp_path_factory: pytest.TempPathFactory, object_store: Proxy) -> Iterator[Loopback]:
    """A foreign cluster: two nodes of one processor each, a token, and keys of an object store."""
    keys = variables(object_store.address)
    with cluster(tmp_path_factory.mktemp("two nodes"), 2, keys) as running:
        yield running
    assert running.processes() == []


LEVELS = ("low", "mid", "high")


def write_tones(
    folder: Path, per_class: int = 12, seconds: float = 1.0, labels: Sequence[str] = LEVELS
) -> Path:
    """Write three classes of noisy tones by four artists each; returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    time_s = np.arange(int(seconds * 16_000)) / 16_000
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "artist"])
        for level, label, hertz in zip(LEVELS, labels, (220.0, 880.0, 3520.0), strict=True):
            for number in range(per_class):
                # Loud noise, so that one epoch does not already know everything.
                pitch = hertz * 2 ** rng.uniform(-0.3, 0.3)
                wave = 0.05 * np.sin(2 * np.pi * pitch * time_s) + 0.1 * rng.normal(
                    size=len(time_s)
                )
                name = f"{level} {number}.wav"
                soundfile.write(folder / name, wave, 16_000, subtype="PCM_16")
                table.writerow([name, label, f"{label} artist {number % 4}"])
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 36 short files."""
    return write_tones(tmp_path_factory.mktemp("tones"))


def build_here(
    manifest: Path, out: Path, clips_per_track: int, n_mels: int, folds: int | None = None
):
    """Build a feature set of clips of half a second, without Ray."""
    from pipelines.build.building import build_sets
    from pipelines.build.decode import decode_here
    from pipelines.build.options import BuildOptions
    from pipelines.features import FeatureSpec
    from pipelines.settings import ClipSpec, SplitSpec
    from pipelines.sources.catalog import read_catalog

    clip = ClipSpec(clip_seconds=0.5, clips_per_track=clips_per_track)
    feature = FeatureSpec(sample_rate=16_000, n_fft=512, hop_length=256, n_mels=n_mels)
    split = SplitSpec(train=0.5, val=0.25, test=0.25, folds=folds)
    options = BuildOptions(decode=decode_here)
    return build_sets(read_catalog(manifest), out, [(clip, feature)], split, options)[0]


@pytest.fixture(scope="session")
def tiny_features(tones: Path, tmp_path_factory: pytest.TempPathFactory):
    """The feature set of `tones`: two clips a track, 32 bands."""
    return build_here(tones, tmp_path_factory.mktemp("features"), clips_per_track=2, n_mels=32)


@pytest.fixture(scope="session")
def one_clip_features(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a feature set of 24 noisy tones, one clip of 16 bands each."""
    manifest = write_tones(tmp_path_factory.mktemp("data"), per_class=8, seconds=0.6)
    result = build_here(manifest, tmp_path_factory.mktemp("sets"), clips_per_track=1, n_mels=16)
    return str(result.feature_set.path)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings next to the project; tests that need them skip where there are none."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no recordings next to the project")
    return folder


@functools.cache
def _missing_weights(source: Source, cache: Path) -> str:
    """Why weights cannot be had, asked once per process; empty if they are here."""
    from pipelines.features.networks import NETWORKS
    from pipelines.features.networks.store import weights_file

    try:
        weights_file(next(row for row in NETWORKS.values() if row.source == source))
    except WeightsError as error:
        return str(error)
    return ""


@pytest.fixture
def weights(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Sees to the weights of a network, in a cache of this run of tests; skips without them."""
    base = tmp_path_factory.getbasetemp()
    # Processes of one run share the folder above, and the lock in it.
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "networks cache"
    monkeypatch.setenv("TUNER_CACHE", str(cache))

    def need(name: str) -> None:
        from pipelines.features.networks import NETWORKS

        if why := _missing_weights(NETWORKS[name].source, cache):
            pytest.skip(why)

    return need


class ByCluster(LoadScopeScheduling):
    """Keeps in one process the tests of a file, and the files that share a cluster."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        text = (self.config.rootpath / file).read_text()
        if "two_nodes" in text:
            return "two_nodes"
        if "local_ray" not in text:
            return file
        return "studies" if "tests/integration" in file else "local_ray"


# xdist's own groups (``--dist loadgroup``, 3.8) have no effect with pytest 9.2.
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByCluster:
    return ByCluster(config, log)
