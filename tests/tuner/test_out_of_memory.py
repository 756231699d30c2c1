"""Running out of memory: a retry with half the clips at once, then the trial fails alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines.storage import Folder
from tuner.config import loads
from tuner.training.array_feed import ArrayFeed
from tuner.training.feed import Alone, Batch
from tuner.training.learner import Learner
from tuner.trials.assembly import TrialSpec
from tuner.trials.out_of_memory import OutOfMemory, is_out_of_memory, reason_of
from tuner.trials.trial import train

CPU = Alone(torch.device("cpu"))
GPU_WORDS = "CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation"
CPU_WORDS = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate"
SPACE = """
name: memory
model: {name: cnn, blocks: 2, channels: 4, batch_norm: false, dropout: 0.0}
optim: {name: sgd, lr: 0.05, momentum: 0.0}
train: {epochs: 3, batch_size: 8, precision: fp32}
"""


@pytest.fixture
def features(one_clip_features: str) -> str:
    return one_clip_features


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))


def memory_for(clips: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the forward pass fail with more clips; returns a list of the sizes that were tried."""
    sizes: list[int] = []
    whole = Learner._loss

    def loss(self: Learner, batch: Batch) -> torch.Tensor:
        sizes.append(len(batch.y))
        if len(batch.y) > clips:
            raise error
        return whole(self, batch)

    monkeypatch.setattr(Learner, "_loss", loss)
    return sizes


def run(study: Path, features: str) -> list[dict]:
    spec = TrialSpec("t0", "search", 1, loads(SPACE).template, features)
    spec.write(Folder(study))
    return list(train(Folder(study), spec, CPU))


def test_the_trial_continues_with_half_the_clips_and_learns_the_same(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_enough = run(tmp_path / "a", features)
    sizes = memory_for(4, torch.OutOfMemoryError(GPU_WORDS), monkeypatch)
    reports = run(tmp_path / "b", features)
    assert sizes[0] == 8
    assert set(sizes[1:]) <= {4, 3, 2}
    assert [r["epoch"] for r in reports] == [1, 2, 3]
    assert {r["note"] for r in reports} == {
        "out of memory in epoch 1, continued with half the clips at once"
    }
    assert all("note" not in r for r in with_enough)
    for one, other in zip(with_enough, reports, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
    kept = Folder(tmp_path / "b" / "trials" / "t0").read_json("out_of_memory.json")
    assert kept == {
        "epoch": 1, "reason": "CUDA out of memory. Tried to allocate 2.00 GiB.", "again": False,
    }  # fmt: skip


def test_the_second_try_leaves_a_gpu_to_the_model(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is cached on a CPU, so the test pretends to have a GPU."""
    monkeypatch.setattr("tuner.trials.assembly.cache_budget", lambda *_: 2**30)
    kept: list[int] = []
    batches = ArrayFeed.train

    def observed(self: ArrayFeed, epoch: int) -> Iterator[Batch]:
        kept.append(self.cache_bytes)
        return batches(self, epoch)

    monkeypatch.setattr(ArrayFeed, "train", observed)
    memory_for(4, torch.OutOfMemoryError(GPU_WORDS), monkeypatch)
    assert [r["epoch"] for r in run(tmp_path, features)] == [1, 2, 3]
    assert kept == [2**30, 0, 0, 0]


def test_a_trial_that_continues_elsewhere_remembers(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = memory_for(4, RuntimeError(CPU_WORDS), monkeypatch)
    spec = TrialSpec("t0", "search", 1, loads(SPACE).template, features)
    first = train(Folder(tmp_path), spec, CPU)
    next(first)
    del first
    before = len(sizes)
    assert [r["epoch"] for r in train(Folder(tmp_path), spec, CPU)] == [1, 2, 3]
    assert max(sizes[before:]) == 4


def test_epochs_that_were_saved_and_never_recorded_are_reported_by_the_next_process(
    features: str, tmp_path: Path
) -> None:
    """Workers train on while their reports are on the way to the driver."""
    whole = run(tmp_path / "whole", features)
    spec = TrialSpec("t0", "search", 1, loads(SPACE).template, features)
    first = train(Folder(tmp_path), spec, CPU)
    next(first)
    next(first)
    del first
    for recorded, reported in ((0, whole[:2]), (1, whole[1:2]), (2, whole[1:2])):
        again = train(Folder(tmp_path), replace(spec, recorded=recorded), CPU)
        assert [next(again) for _ in reported] == reported
    assert list(train(Folder(tmp_path), replace(spec, recorded=2), CPU)) == whole[1:]


def test_what_fails_again_ends_the_trial_with_the_finite_worst_value(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_for(2, RuntimeError(CPU_WORDS), monkeypatch)
    (report,) = run(tmp_path, features)
    assert report["val_f1_macro"] == 0.0
    assert report["error"].startswith("out of memory, with half the clips at once too: [enforce")
    # a later process does not try a third time
    (again,) = train(Folder(tmp_path), TrialSpec.read(Folder(tmp_path), "t0"), CPU)
    assert again == report


def test_with_several_workers_the_process_ends_so_that_the_others_need_not_wait(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OneOfTwo(Alone):
        size = 2

    memory_for(0, RuntimeError(CPU_WORDS), monkeypatch)
    spec = TrialSpec("t0", "search", 1, loads(SPACE).template, features)
    two = OneOfTwo(torch.device("cpu"))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
            list(train(Folder(tmp_path), spec, two))
    (report,) = train(Folder(tmp_path), spec, two)
    assert report["error"].startswith("out of memory, with half")


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", '{"epoch": "x"}'])
def test_a_damaged_note_still_halves(text: str, tmp_path: Path) -> None:
    (tmp_path / "out_of_memory.json").write_text(text)
    found = OutOfMemory.read(Folder(tmp_path))
    assert found is not None
    assert (found.epoch, found.again) == (1, False)


def test_other_errors_are_not_taken_for_it(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_for(2, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), monkeypatch)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(tmp_path, features)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError(CPU_WORDS), True),
        (RuntimeError("shape mismatch"), False),
        (OSError("Cannot allocate memory"), False),
    ],
)
def test_what_memory_errors_look_like(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
    assert reason_of(error)


@pytest.mark.parametrize("gigabytes", [2**20])
def test_the_allocators_own_words_are_known(gigabytes: int) -> None:
    """A petabyte: no machine has it, so the true error is raised."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(gigabytes * 2**30, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
