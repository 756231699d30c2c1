"""The benchmarks of training and loading, at tiny sizes: all variants do the same work."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch

from benchmarks import loader, recipe, train_step, training, workers
from tuner.training.arrays import Arrays

CPU = torch.device("cpu")
NUM_CLIPS = 48
BATCH_SIZE = 16


@pytest.fixture
def clips(tmp_path: Path) -> Arrays:
    return training.write_clips(tmp_path, NUM_CLIPS, (16, 20))


def values_of(batches) -> list[list[float]]:
    """First values of each clip and its class, in an order of their own."""
    clips = (clip for xs, ys in batches for clip in zip(xs, ys, strict=True))
    return sorted([*x[0, :4].tolist(), int(y)] for x, y in clips)


def test_made_up_clips_are_mapped_and_balanced(clips: Arrays) -> None:
    assert isinstance(clips.x, np.memmap)
    assert clips.x.dtype == np.float16
    assert np.bincount(clips.y[:NUM_CLIPS]).tolist() == [5] * 8 + [4] * 2
    x, y = training.standardised(clips, "train", CPU)
    assert x.shape == (NUM_CLIPS, 1, 16, 20)
    torch.testing.assert_close(x.mean((0, 1, 3)), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(x.std((0, 1, 3)), torch.ones(16), atol=1e-2, rtol=0)
    assert y.tolist() == clips.y[:NUM_CLIPS].tolist()


def test_the_bare_loop_learns_what_ours_learns(clips: Arrays) -> None:
    alone = training.alone("cpu")
    feed = training.make_feed(clips, BATCH_SIZE, alone)
    ours = training.our_epochs("cnn", clips, feed, training.make_recipe(3), alone)
    bare = train_step.bare_epochs("cnn", clips, BATCH_SIZE, 3, CPU)
    assert list(ours) == pytest.approx(list(bare), rel=train_step.SAME_LOSS)


def test_a_step_is_measured(clips: Arrays) -> None:
    found = train_step.measure("cnn", clips, BATCH_SIZE, 2, "cpu")
    assert found["rounds"] == 2
    assert found["ratios"]["bare / ours"]["median"] > 0
    # clips a second is clips of an epoch by its time
    seconds = found["median_ms"]["ours"] / 1e3
    assert found["clips_per_second"]["ours"] == pytest.approx(NUM_CLIPS / seconds, abs=0.1)


@pytest.mark.parametrize("bare", [2.1, float("nan")])
def test_variants_with_other_losses_are_no_measurement(bare: float) -> None:
    with pytest.raises(SystemExit, match="mean nothing"):
        train_step.expect_same_work(2.0, bare)
    train_step.expect_same_work(2.0, 2.01)


def test_the_recipe_is_measured_against_a_stock_loop(clips: Arrays) -> None:
    found = recipe.measure(clips, 1, "cpu", "cnn")
    assert set(found["clips_per_second"]) == {"ours", "stock"}
    assert list(found["ratios"]) == ["stock / ours"]


def test_accuracies_are_compared_in_points() -> None:
    # differences 1, 3, 2: mean 2, standard deviation 1, error 1 / sqrt(3)
    found = recipe.compare_points([90.0, 80.0, 85.0], [91.0, 83.0, 87.0])
    assert (found["mean_fp32"], found["mean_auto"]) == (85, 87)
    assert (found["auto - fp32"], found["standard_error"]) == (2, 0.58)


def test_both_precisions_are_trained_from_the_same_seeds(clips: Arrays) -> None:
    found = recipe.accuracies(clips, "cnn", epochs=1, seeds=2)
    assert set(found) == {"val_accuracy", "val_clip_accuracy"}
    both = found["val_accuracy"]
    assert len(both["fp32"]) == len(both["auto"]) == 2
    # each track of these is one clip
    assert both == found["val_clip_accuracy"]


@pytest.mark.parametrize("make", [loader.clip_loader, loader.batch_loader])
def test_loaders_give_the_clips_that_our_feed_gives(clips: Arrays, make) -> None:
    feed = training.make_feed(clips, BATCH_SIZE, training.alone("cpu"))
    ours = values_of((batch.x, batch.y) for batch in feed.train(1))
    theirs = list(make(clips, BATCH_SIZE, 0))
    assert all(x.dtype == torch.float32 and len(x) == BATCH_SIZE for x, _ in theirs)
    assert values_of(theirs) == ours
    assert loader.our_epoch(feed) == loader.torch_epoch(theirs) == NUM_CLIPS


def test_parquet_files_hold_the_training_clips(clips: Arrays, tmp_path: Path) -> None:
    folder = tmp_path / "parquet"
    folder.mkdir()
    loader.write_parquet(clips, folder)
    table = pyarrow.parquet.read_table(folder).combine_chunks()
    features = table.column("features").chunk(0).to_numpy_ndarray()
    np.testing.assert_array_equal(features, clips.x[:NUM_CLIPS])
    assert table.column("label").to_pylist() == [clips.labels[y] for y in clips.y[:NUM_CLIPS]]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ray_data_gives_all_clips(clips: Arrays, tmp_path: Path, local_ray) -> None:
    folder = tmp_path / "parquet"
    folder.mkdir()
    loader.write_parquet(clips, folder)
    assert loader.ray_epoch(folder, clips.labels, BATCH_SIZE) == NUM_CLIPS


def test_waiting_for_batches_is_timed_and_training_is_not(clips: Arrays) -> None:
    class Slow:
        def train(self, epoch: int):
            for number in range(3):
                time.sleep(0.02)
                yield number

    feed = loader.TimedFeed(Slow())  # type: ignore[arg-type]
    started = time.perf_counter()
    for _ in feed.train(1):
        time.sleep(0.05)
    passed = time.perf_counter() - started
    assert 0.06 <= feed.waited_s <= passed - 0.15


def test_an_epoch_waits_for_less_than_all_of_its_time(clips: Arrays) -> None:
    shares = loader.stalls(clips, BATCH_SIZE, epochs=2)
    assert len(shares) == 2
    assert all(0 < share < 1 for share in shares)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_workers_learn_what_one_learns(tmp_path: Path) -> None:
    found = workers.measure(tmp_path, "cnn", NUM_CLIPS, BATCH_SIZE, 1)
    losses = found["loss_of_first_epoch"]
    # the first batch's loss does not depend on how the batch is divided; bf16 rounds otherwise
    assert losses["two"] == pytest.approx(losses["one"], rel=0.02)
    assert list(found["ratios"]) == ["one / two", "one / two, own norms"]
