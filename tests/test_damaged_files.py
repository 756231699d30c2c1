"""Everything durable that the program reads back: a bit flipped, cut, empty, lost, replaced.

What is read must be what was written, by making it again where that is possible, or the error must
be a sentence that names the file and says what to do.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.torch
import torch

from pipelines import demo
from pipelines.build.building import build_sets
from pipelines.build.decode import DecodeBatch, Verdicts, decode_here
from pipelines.build.options import BuildOptions
from pipelines.build.reuse import RowReader, staged_tracks
from pipelines.build.tasks import DecodeJob
from pipelines.errors import UserError
from pipelines.features.networks import store
from pipelines.settings import SplitSpec
from pipelines.sources.catalog import read_catalog
from pipelines.sources.content import digests
from pipelines.storage import Folder
from pipelines.store import open_feature_set
from pipelines.weights import read_weights
from tests.conftest import write_tones
from tests.pipelines.wheels import WEIGHT, tiny_row, write_wheel
from tests.tuner.studies import write_study
from tests.tuner.test_registry import make_bundle
from tuner.config import loads
from tuner.ledger.journal import recorded
from tuner.models.weights import read_published
from tuner.tracking import registry
from tuner.training.arrays import open_arrays
from tuner.training.checkpoint import best_weights, newest_checkpoint
from tuner.training.exported import load_exported, member_folder, save_fusion
from tuner.training.feed import Alone
from tuner.training.profile import save_profile
from tuner.trials.assembly import TrialSpec
from tuner.trials.out_of_memory import OutOfMemory
from tuner.trials.predictions import Predictions, predict_split, training_profile
from tuner.trials.trial import train

CPU = Alone(torch.device("cpu"))
SPACE = """
name: s
data: {clip_seconds: 0.5, clips_per_track: 1}
features: {sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 16}
model: {name: cnn, blocks: 2, channels: 2}
optim: {lr: find}
train: {epochs: 2, batch_size: 8, ema: 0.9}
"""
REMEDIES = re.compile(
    r"delete |remove |restore |put that file|--name|again|another folder|the same command"
)


class Stopped(Exception):  # noqa: N818  # no error
    """The end of a build before its rows are merged."""


def decode_only(
    job: DecodeJob, batches: Sequence[DecodeBatch]
) -> Iterator[tuple[DecodeBatch, Verdicts]]:
    yield from decode_here(job, batches)
    raise Stopped


@dataclass(frozen=True)
class World:
    """One of everything, in a folder."""

    root: Path
    data: Path
    feature_set: Path
    trial: TrialSpec

    @property
    def trials(self) -> Folder:
        return Folder(self.root / "study")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    data, sets = write_tones(root / "data", per_class=8, seconds=0.6), root / "sets"
    long_ago_ns = 1_600_000_000 * 10**9  # of files that are new, no digest is kept
    for file in data.parent.iterdir():
        os.utime(file, ns=(long_ago_ns, long_ago_ns))
    spec = loads(SPACE).template
    split = SplitSpec(train=0.5, val=0.25, test=0.25)
    build = read_catalog(data), sets, [spec.feature_set_key], split
    with pytest.raises(Stopped):
        build_sets(*build, BuildOptions(decode=decode_only))
    (staging,) = (path for path in (sets / ".staging").iterdir() if path.is_dir())
    for file in sorted(staging.iterdir())[:6]:  # two batches
        Folder(root / "staging").write_bytes(file.name, file.read_bytes())
    built = build_sets(*build, BuildOptions(decode=decode_here))[0]
    trial = TrialSpec("t0", "search", 1, spec, str(built.feature_set.path))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TUNER_CACHE", str(root / "cache"))
        patched.setenv("TORCH_HOME", str(root))
        patched.delenv("http_proxy", raising=False)
        found = World(root, data, built.feature_set.path, trial)
        trial.write(found.trials)
        list(train(found.trials, trial, CPU))
        predict_split(found.trials, trial, "val").write(found.trials, "t0", "val")
        OutOfMemory(2, "no memory", again=True).write(Folder(root / "note"))
        make_bundle(root / "model")
        save_profile(Folder(root / "model"), training_profile(trial))
        for number in range(2):
            make_bundle(member_folder(root / "fusion", number), seed=number)
        save_fusion(root / "fusion", (0.25, 0.75), {"study": "s", "fingerprint": "0123"})
        write_study(root / "storage", 20)
        linear = {"linear.weight": torch.tensor(WEIGHT)}
        networks = Folder(root / "cache/networks")
        networks.write_bytes("tiny.safetensors", safetensors.torch.save(linear))
        Folder(root / "hub/checkpoints").create()
        torch.save(linear, root / "hub/checkpoints/hub.pth")
        settings = {"version": demo.DATASET_VERSION, "seed": 0, "tracks": 30}
        Folder(root / "demo").write_json(demo.SETTINGS_NAME, settings)
        for track in demo.plan_tracks(30):
            Folder(root / "demo").write_bytes(track.path, b"")
        Folder(root / "demo").write_text("manifest.csv", "")
        yield found


# -- what the program does with each


def read_ledger(world: World) -> Any:
    return recorded(Folder(world.root / "storage/studies/quick"))


def read_rows(world: World) -> Any:
    tracks = staged_tracks(Folder(world.root / "staging"))
    with RowReader() as reader:
        return {
            key: [one.verdict, *reader.read(one).column("features").to_pylist()]
            for key, one in tracks.items()
        }


def read_digests(world: World) -> Any:
    return digests(read_catalog(world.data), Folder(world.root / "sets/.digests"))


def read_set(world: World) -> Any:
    shutil.rmtree(world.root / "new cache", ignore_errors=True)
    found = open_feature_set(Folder(world.feature_set))
    arrays = open_arrays(world.feature_set, world.root / "new cache")
    return arrays, found.tracks().to_pylist(), found.manifest


def read_profile_of_set(world: World) -> Any:
    return training_profile(world.trial)


def read_arrays(world: World) -> Any:
    return open_arrays(world.feature_set, world.root / "cache")


def read_trial(world: World) -> Any:
    return TrialSpec.read(world.trials, "t0")


def read_checkpoint(world: World) -> Any:
    return newest_checkpoint(world.trials / "trials/t0/checkpoints")


def read_best(world: World) -> Any:
    return best_weights(world.trials / "trials/t0/checkpoints")


def read_predictions(world: World) -> Any:
    kept = Predictions.read(world.trials, "t0", "val")
    return kept or predict_split(world.trials, world.trial, "val")


def train_again(world: World) -> Any:
    """Train the second epoch again, at the rate that was found before the first one."""
    again = Folder(world.root / "again")
    again.remove()
    shutil.copytree(world.trials.path, again.path)
    (again / "trials/t0/checkpoints").remove("epoch-0002")
    list(train(again, world.trial, CPU))
    return newest_checkpoint(again / "trials/t0/checkpoints")


def read_note(world: World) -> Any:
    return OutOfMemory.read(Folder(world.root / "note"))


def read_model(folder: str) -> Callable[[World], Any]:
    def read(world: World) -> Any:
        found: Any = load_exported(world.root / folder)
        models = getattr(found, "members", (found,))
        parts = [(one.bundle, one.classifier.state_dict(), one.profile) for one in models]
        return found.origin if len(models) > 1 else None, parts

    return read


def fingerprint_of(world: World) -> Any:
    return registry.fingerprint_of(world.root / "fusion")


def read_network(world: World) -> Any:
    wheel = write_wheel(world.root / "index")
    file = store.find(tiny_row("tiny", wheel))
    return file and read_weights(file)


def read_hub(_world: World) -> Any:
    return read_published("http://127.0.0.1:9/hub.pth")


def read_demo(world: World) -> Any:
    return demo.write_demo(world.root / "demo", 30)


# -- what may differ from what was written


def nothing(_found: Any, _whole: Any) -> bool:
    return False


def is_start(found: list[Any], whole: list[Any]) -> bool:
    """The study goes on from there, as after a kill."""
    return found == whole[: len(found)]


def is_lost(found: Any, _whole: Any) -> bool:
    """It is fetched again."""
    return found is None


def is_part(found: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    """The rest is decoded again."""
    return all(whole[key] == one for key, one in found.items())


def is_earlier(found: Any, _whole: Any) -> bool:
    """Training goes on from the epoch before, bit for bit, or from its start."""
    return found is None or found["epoch"] == 1


def is_told(found: Any, _whole: Any) -> bool:
    """Without the note, memory runs out again; without its content, once more."""
    return found is None or found["reason"] == "the note cannot be read"


def lacks_profile(found: Any, whole: Any) -> bool:
    """It is one of an earlier version, then."""
    without = [(*one[:2], None) for one in whole[1]]
    return [tuple(one) for one in found[1]] == without


class Durable(NamedTuple):
    """Something on disk, what reads it, and what else than the same may come of damage."""

    files: str
    read: Callable[[World], Any]
    may: Callable[[Any, Any], bool] = nothing


DURABLE = [
    Durable("storage/studies/quick/ledger.jsonl", read_ledger, is_start),
    Durable("staging/*", read_rows, is_part),
    Durable("sets/.digests/*.json", read_digests),
    Durable("sets/*/manifest.json", read_set),
    Durable("sets/*/clips/*/*.parquet", read_set),
    Durable("sets/*/tracks.parquet", read_set),
    Durable("sets/*/decoded.parquet", read_profile_of_set),
    Durable("cache/*/*.npy", read_arrays),
    Durable("cache/*/index.json", read_arrays),
    Durable("study/trials/t0/trial.json", read_trial),
    Durable("study/trials/t0/checkpoints/*/*", read_checkpoint, is_earlier),
    Durable("study/trials/t0/checkpoints/*/*.*", read_best),
    Durable("study/trials/t0/answers/val.npz", read_predictions),
    Durable("study/trials/t0/lr_finder.json", train_again),
    Durable("note/out_of_memory.json", read_note, is_told),
    Durable("model/*", read_model("model"), lacks_profile),
    Durable("fusion/bundle.json", read_model("fusion")),
    Durable("fusion/bundle.json", fingerprint_of),
    Durable("fusion/*/*", read_model("fusion")),
    Durable("cache/networks/*.safetensors", read_network, is_lost),
    Durable("hub/checkpoints/hub.pth", read_hub),
    Durable("demo/demo.json", read_demo),
]


def seen(value: Any) -> Any:
    """Return a value as something that compares by content."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): seen(one) for key, one in value.items()}
    return [seen(one) for one in value] if isinstance(value, list | tuple) else value


def damages(content: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes | None]]:
    rng = np.random.default_rng(seed)
    yield "lost", None
    for other in (b"", b"[]", b"{}", rng.bytes(len(content) + 1)):
        yield f"replaced by {other[:8]!r}", other
    for offset in rng.integers(0, len(content), count).tolist():
        bit = 1 << int(rng.integers(8))
        flipped = content[:offset] + bytes([content[offset] ^ bit]) + content[offset + 1 :]
        yield f"bit {bit} of byte {offset} flipped", flipped
    for offset in rng.integers(0, len(content), count).tolist():
        yield f"cut at {offset}", content[:offset]


CLOCK = itertools.count(1_650_000_000 * 10**9)


def put(file: Path, content: bytes | None) -> None:
    """Write a file as another process finds it: with a time stamp of its own."""
    if content is None:
        file.unlink()
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    os.utime(file, ns=(next(CLOCK),) * 2)


@pytest.mark.parametrize("count", [2, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("durable", DURABLE, ids=lambda one: f"{one.files} {one.read.__name__}")
def test_damage_is_mended_or_named(world: World, durable: Durable, count: int) -> None:
    whole = seen(durable.read(world))
    files = sorted(path for path in world.root.glob(durable.files) if path.is_file())
    assert files
    faults = []
    for seed, file in enumerate(files):
        content = file.read_bytes()
        for what, damaged in damages(content, count, seed):
            put(file, damaged)
            try:
                found = seen(durable.read(world))
                if found != whole and not durable.may(found, whole):
                    faults.append(f"{file.name} {what}: silently other")
            except UserError as error:
                text = str(error)
                if not {file.name, file.parent.name} & set(re.split(r"[/\s:,]+", text)):
                    faults.append(f"{file.name} {what}: not named in {text}")
                if not REMEDIES.search(text):
                    faults.append(f"{file.name} {what}: no remedy in {text}")
            except Exception as error:  # noqa: BLE001
                faults.append(f"{file.name} {what}: {type(error).__name__}: {error}")
            finally:
                put(file, content)
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults[:20])
