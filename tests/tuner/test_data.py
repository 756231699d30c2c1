"""Mapped arrays and their batches against the rows of the feature set they come from."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.build import writer
from pipelines.build.building import build_sets
from pipelines.build.decode import decode_here
from pipelines.build.options import BuildOptions
from pipelines.errors import SpecError
from pipelines.features import FeatureSpec
from pipelines.settings import SPLITS, ClipSpec, SplitSpec
from pipelines.sources.catalog import read_catalog
from pipelines.storage import Folder, room
from pipelines.store import FeatureSet
from tests.conftest import write_tones
from tests.tuner.training_inputs import make_arrays, make_recipe
from tuner.training.array_feed import ArrayFeed, cache_budget
from tuner.training.arrays import Arrays, open_arrays
from tuner.training.feed import Alone
from tuner.training.recipe import Crops

CPU = torch.device("cpu")


def arrays(num_train: int = 50) -> Arrays:
    """Clips whose features are their own row number, two a track."""
    n = num_train + 10
    x = np.broadcast_to(np.arange(n, dtype=np.float16)[:, None, None], (n, 4, 6)).copy()
    x += np.arange(6, dtype=np.float16) / 16
    sound = np.tile([2, 4], (n, 1))
    return make_arrays(x, np.arange(n) // 2 % 3, num_train, 6, clips_per_track=2, sound=sound)


class OneOf(Alone):
    """One of several workers that share batches and never talk."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(CPU)
        self.rank, self.size = rank, size


def feed(rank: int = 0, size: int = 1, cache_bytes: int = 0, **settings) -> ArrayFeed:
    settings = {"batch_size": 16, "seed": 7, **settings}
    return ArrayFeed(arrays(), make_recipe(**settings), OneOf(rank, size), cache_bytes)


def rows_of(batch) -> list[int]:
    return [round(v) for v in batch.x[:, 0, 0].tolist()]


def test_an_epoch_is_every_training_clip_once_in_another_order_each_time() -> None:
    one, two = ([r for b in feed().train(e) for r in rows_of(b)] for e in (1, 2))
    assert sorted(one) == sorted(two) == list(range(50))
    assert one != two
    assert one == [r for b in feed().train(1) for r in rows_of(b)]


def test_labels_belong_to_their_clips() -> None:
    for batch in feed().train(1):
        assert batch.y.tolist() == [(r // 2) % 3 for r in rows_of(batch)]


@pytest.mark.parametrize("size", [2, 3])
def test_workers_parts_make_the_whole_batch(size: int) -> None:
    settings: dict[str, Any] = {"time_mask": 2, "mixup": 0.5, "crops": Crops(4)}
    # Three workers leave out the last batch of two.
    whole = list(feed(**settings).train(3))[: feed(size=size).steps_per_epoch]
    parts = [list(feed(rank, size, **settings).train(3)) for rank in range(size)]
    assert [len(p) for p in parts] == [len(whole)] * size
    for step, batch in enumerate(whole):
        mine = [p[step] for p in parts]
        assert torch.equal(torch.cat([b.x for b in mine]), batch.x)
        assert batch.partner is not None
        for name in ("x", "y"):
            joined = torch.cat([getattr(b.partner, name) for b in mine])
            assert torch.equal(joined, getattr(batch.partner, name))
        assert {b.whole_size for b in mine} == {len(batch.y)}


def test_the_last_uneven_batch_counts_once_and_one_too_small_is_left_out() -> None:
    # 50 = 3 x 16 + 2: two clips are enough for two workers, not for three.
    assert feed(batch_size=16).steps_per_epoch == 4
    assert feed(batch_size=16, size=2).steps_per_epoch == 4
    assert feed(batch_size=16, size=3).steps_per_epoch == 3
    # An elastic trial has as many steps on one of its three workers as on all of them.
    elastic = ArrayFeed(arrays(), make_recipe(batch_size=16), Alone(CPU), most_workers=3)
    assert elastic.steps_per_epoch == len([*elastic.train(1)]) == 3
    # 50 = 7 x 7 + 1: a batch of one has no variance to normalise by.
    assert feed(batch_size=7).steps_per_epoch == 7


def test_crops_are_windows_of_the_clip() -> None:
    starts = set()
    for batch in feed(crops=Crops(3)).train(1):
        assert batch.x.shape[1:] == (4, 3)
        first = (batch.x[:, 0, 0] % 1) * 16
        # float16 keeps sixteenths of numbers below 128 exactly.
        assert torch.equal((batch.x[:, 0, 2] % 1) * 16, first + 2)
        starts |= set(first.int().tolist())
    assert starts == {0, 1, 2, 3}


def test_crops_of_sound_start_where_the_arrays_say_there_is_some() -> None:
    starts = set()
    for batch in feed(crops=Crops(2, where="sound")).train(1):
        starts |= set(((batch.x[:, 0, 0] % 1) * 16).int().tolist())
    assert starts == {2, 3, 4}


def test_balanced_order_draws_each_class_as_often() -> None:
    whole = arrays(num_train=60)
    y = np.where(np.arange(70) < 48, 0, np.where(np.arange(70) < 57, 1, 2))
    # 48, 9 and 3 of 60 clips in training
    rare = replace(whole, y=y)
    drawn = replace(feed(batch_size=20, balance="sampling"), arrays=rare)
    assert drawn.train_counts.tolist() == [48, 9, 3]
    counts = np.zeros(3)
    for epoch in range(1, 101):
        counts += np.bincount([c for b in drawn.train(epoch) for c in b.y.tolist()], minlength=3)
    assert counts.sum() == 6000
    # a third each; the standard deviation of a count is 36.5
    assert np.abs(counts - 2000).max() < 5 * 36.5
    again = [b.y.tolist() for b in drawn.train(3)]
    assert again == [b.y.tolist() for b in drawn.train(3)]


def test_a_final_fit_learns_from_validation_clips_and_never_from_test_clips() -> None:
    joined = replace(feed(), arrays=arrays().learning_from_validation())
    seen = sorted(r for b in joined.train(1) for r in rows_of(b))
    assert set(seen) <= set(range(56))
    assert len(seen) == 56 // 16 * 16 + 8
    assert {50, 51, 52, 53, 54, 55} <= set(seen)
    assert [rows_of(b) for b in joined.evaluation("test")] == [[56, 57, 58, 59]]


@pytest.mark.parametrize("clips", [20, 53, 60])
@pytest.mark.parametrize("crops", [Crops(4), Crops()])
def test_clips_cached_on_the_device_give_the_same_batches(clips: int, crops: Crops) -> None:
    """On a GPU some or all lie there as one tensor; the gathering is the same code here."""
    row_bytes = arrays().x[0].nbytes
    mapped = feed(mixup=0.3, crops=crops)
    cached = feed(mixup=0.3, crops=crops, cache_bytes=clips * row_bytes + row_bytes - 1)
    for one, other in zip(mapped.val(), cached.val(), strict=True):
        assert torch.equal(one.x, other.x)
    cached.arrays.x[:clips] = -1  # cached clips are not read from the map
    for one, other in zip(mapped.train(2), cached.train(2), strict=True):
        assert torch.equal(one.x, other.x)
        assert one.partner is not None
        assert other.partner is not None
        assert torch.equal(one.partner.x, other.partner.x)


def test_a_cpu_caches_no_clips() -> None:
    """Copied, they would take the memory of every trial; mapped, all trials of a node share it."""
    assert cache_budget(CPU) == 0


@pytest.mark.parametrize(("gpus", "expected"), [(0.25, 4.0), (1.0, 12.0), (2.0, 12.0)])
def test_clips_take_up_a_share_of_what_a_trial_has(monkeypatch, gpus, expected) -> None:
    """A GPU of 40 bytes has 20 free, and torch holds 10 more; a quarter of it has 10 at most."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (20, 40))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: 15)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: 5)
    assert cache_budget(torch.device("cuda"), gpus) == expected


@pytest.mark.parametrize("size", [1, 2, 4])
def test_validation_is_every_clip_once_over_the_workers(size: int) -> None:
    seen = [(r, t) for rank in range(size) for b in feed(rank, size).val()
            for r, t in zip(rows_of(b), b.track.tolist(), strict=True)]  # fmt: skip
    assert sorted(seen) == [(50, 0), (51, 0), (52, 1), (53, 1), (54, 2), (55, 2)]
    assert feed().val_labels.tolist() == [25 % 3, 26 % 3, 27 % 3]


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_mapped_arrays_hold_the_rows_of_the_feature_set(tiny_features, tmp_path: Path) -> None:
    source = tiny_features.feature_set
    mapped = open_arrays(source.path, tmp_path / "cache")
    assert isinstance(mapped.x, np.memmap)
    table = {}
    for split in ("train", "val", "test"):
        rows = mapped.splits[split]
        names, features = [], []
        for batch in source.batches(split):
            names += batch.column("track_id").to_pylist()
            features.append(batch.column("features").to_numpy_ndarray())
        np.testing.assert_array_equal(mapped.x[rows.clips], np.concatenate(features))
        assert [mapped.track_ids[t] for t in mapped.track[rows.clips]] == names
        table[split] = np.concatenate(features).astype(np.float64)
    np.testing.assert_allclose(mapped.mean, table["train"].mean((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(mapped.std, table["train"].std((0, 2)), rtol=1e-4)
    # A second opening maps what is there.
    (written,) = (tmp_path / "cache").glob(f"{mapped.fingerprint}*/x.npy")
    before = written.stat().st_mtime_ns
    open_arrays(source.path, tmp_path / "cache")
    assert written.stat().st_mtime_ns == before
    # A truncated file is written again.
    whole = mapped.x[:].copy()
    written.write_bytes(written.read_bytes()[:5000])
    np.testing.assert_array_equal(open_arrays(source.path, tmp_path / "cache").x, whole)


# In a mount of its own: a cache with room for a part of the clips.
SMALL_CACHE = """
import sys
from pathlib import Path
from pipelines.errors import StorageFullError
from tuner.training.arrays import open_arrays
try:
    open_arrays(Path(sys.argv[1]), Path(sys.argv[2]))
except StorageFullError as error:
    print(error, *Path(sys.argv[2]).glob(".building-*"))
"""


def test_a_full_cache_is_named_and_ends_no_process(tiny_features, tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=64k tmpfs "$3" || exit 77; exec "$0" -c "$1" "$2" "$3"'
    command = ["unshare", "-Urm", "sh", "-c", mount, sys.executable, SMALL_CACHE]
    done = subprocess.run(
        [*command, str(tiny_features.feature_set.path), str(tmp_path)],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip(f"no mounts of its own here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    fingerprint = tiny_features.feature_set.manifest.fingerprint
    assert done.stdout.startswith(f"no room left at {tmp_path}/{fingerprint}")
    assert ".building-" not in done.stdout


def test_what_a_killed_process_left_in_the_cache_is_swept(tiny_features, tmp_path: Path) -> None:
    for name in ("dead", "alive"):
        (tmp_path / f".building-{name}").mkdir()
    with Folder(tmp_path).lock("alive.lock"):
        open_arrays(tiny_features.feature_set.path, tmp_path)
    assert [path.name for path in tmp_path.glob(".building-*")] == [".building-alive"]


def test_a_track_with_clips_in_several_splits_has_a_number_in_each(tmp_path: Path) -> None:
    """The oracle is the rows of the set in their order: a new number where the track changes."""
    tracks = read_catalog(write_tones(tmp_path / "data", per_class=4, seconds=0.9))
    split = SplitSpec(unit="clip", train=0.5, val=0.25, test=0.25)
    clip = ClipSpec(clip_seconds=0.3, clips_per_track=4)
    feature = FeatureSpec(sample_rate=8000, n_fft=256, hop_length=128, n_mels=16)
    options = BuildOptions(decode=decode_here)
    [built] = build_sets(tracks, tmp_path / "out", [(clip, feature)], split, options)
    found = built.feature_set
    mapped = open_arrays(found.path, tmp_path / "cache")

    label_of = {track.track_id: track.label for track in tracks.tracks}
    seen: list[str] = []
    for split_name in SPLITS:
        rows = mapped.splits[split_name]
        ids = [i for b in found.batches(split_name) for i in b.column("track_id").to_pylist()]
        in_split = list(dict.fromkeys(ids))
        assert len(ids) == {"train": 24, "val": 12, "test": 12}[split_name]  # of 48 clips
        assert [mapped.track_ids[number] for number in rows.tracks] == in_split
        numbers = mapped.track[rows.clips] - rows.tracks[0]
        assert [in_split[number] for number in numbers] == ids
        labels = [mapped.labels[i] for i in mapped.labels_of(split_name)]
        assert labels == [label_of[track] for track in in_split]
        seen += in_split
    assert len(seen) > len(set(seen)), "no track is in two splits, so the test says nothing"
    batches = list(ArrayFeed(mapped, make_recipe(), Alone(CPU)).evaluation("test"))
    num_tracks = len(mapped.labels_of("test"))
    assert sorted({n for b in batches for n in b.track.tolist()}) == list(range(num_tracks))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    folder = tmp_path_factory.mktemp("pieces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_PART_BYTES", 5_000)  # one track
        tracks = read_catalog(write_tones(folder / "data", per_class=20, seconds=0.9))
        clip = ClipSpec(clip_seconds=0.3, clips_per_track=4)
        feature = FeatureSpec(sample_rate=8000, n_fft=256, hop_length=128, n_mels=32)
        options = BuildOptions(decode=decode_here)
        [built] = build_sets(tracks, folder / "out", [(clip, feature)], SplitSpec(), options)
    assert len(built.feature_set.manifest.parts) > 20
    return built.feature_set


class TestPieces:
    """A set of many files, larger than the cache: whole arrays are the oracle."""

    @staticmethod
    def fed(arrays: Arrays, **settings: Any) -> ArrayFeed:
        return ArrayFeed(arrays, make_recipe(batch_size=16, seed=3, **settings), Alone(CPU))

    def test_any_rows_are_those_of_the_whole(self, source: FeatureSet, tmp_path: Path) -> None:
        whole = open_arrays(source.folder, tmp_path / "whole")
        streamed = open_arrays(source.folder, tmp_path / "cache", is_streamed=True)
        rows = np.random.default_rng(0).permutation(len(whole.x))
        np.testing.assert_array_equal(streamed.x[rows], whole.x[rows])
        np.testing.assert_array_equal(streamed.x[:5], whole.x[:5])
        np.testing.assert_array_equal(streamed.x[7, :, 2:5], whole.x[7, :, 2:5])
        assert (len(streamed.x), streamed.x.shape) == (len(whole.x), whole.x.shape)
        for field in ("y", "track", "mean", "std", "sound"):
            np.testing.assert_array_equal(getattr(streamed, field), getattr(whole, field))

    def test_batches_do_not_depend_on_what_the_cache_holds(
        self, source: FeatureSet, tmp_path: Path, monkeypatch
    ) -> None:
        seen, cache = [], tmp_path
        for limit in ("1", "0.0004"):  # GB: all, and a few pieces
            monkeypatch.setenv("TUNER_CACHE_GB", limit)
            cache = tmp_path / limit
            feed = self.fed(open_arrays(source.folder, cache, is_streamed=True), mixup=0.4)
            epochs = [[b.x for b in feed.train(epoch)] for epoch in (1, 2, 1)]
            assert all(map(torch.equal, epochs[0], epochs[2]))
            assert not all(map(torch.equal, epochs[0], epochs[1]))
            seen.append(epochs[0])
        assert all(map(torch.equal, *seen))
        kept = [piece for piece in (cache / "pieces").iterdir() if piece.is_dir()]
        assert len(kept) < len(source.manifest.parts)

    def test_an_epoch_is_every_clip_once_in_windows_of_mixed_pieces(
        self, source: FeatureSet, tmp_path: Path
    ) -> None:
        feed = self.fed(open_arrays(source.folder, tmp_path, is_streamed=True))
        counts = [part.rows for part in source.parts("train")]
        piece_of = np.repeat(np.arange(len(counts)), counts)
        order = feed._shuffled_rows(1)
        assert sorted(order) == list(range(sum(counts)))
        assert list(order) != sorted(order)
        first = piece_of[order[: sum(sorted(counts)[:8])]]
        assert 2 < len(set(first)) <= 8
        assert len(set(np.diff(np.flatnonzero(first == first[0])))) > 1  # mixed, not one by one

    def test_what_is_mapped_stays_and_the_oldest_goes(
        self, source: FeatureSet, tmp_path: Path, monkeypatch
    ) -> None:
        mapped = open_arrays(source.folder, tmp_path)
        folder = tmp_path / f"{source.manifest.fingerprint}-v4"
        other = tmp_path / "0123456789abcdef-v4"
        for name in ("copies/old", "copies/new", other.name):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "x").write_bytes(bytes(100_000))
        os.utime(tmp_path / "copies/new", (2e9, 2e9))
        size = sum(path.stat().st_size for path in folder.iterdir())
        monkeypatch.setenv("TUNER_CACHE_GB", str((size + 150_000) / 1e9))
        room.make_room(tmp_path, 0)
        assert folder.exists()
        assert (tmp_path / "copies/new").exists()
        assert not (tmp_path / "copies/old").exists()
        assert not other.exists()
        room.make_room(tmp_path, 1e6)
        assert folder.exists()
        assert float(mapped.x[0, 0, 0]) == float(mapped.x[0, 0, 0])
        del mapped
        room.make_room(tmp_path, 1e6)
        assert not folder.exists()

    def test_pieces_are_let_go_with_the_trial(self, source: FeatureSet, tmp_path: Path) -> None:
        counts = []
        for _ in range(4):
            feed = self.fed(open_arrays(source.folder, tmp_path, is_streamed=True))
            assert len(list(feed.train(1))) == feed.steps_per_epoch
            del feed
            counts.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208
        assert counts[-1] <= counts[0] + 2

    def test_a_limit_that_is_no_number_is_named(self, tmp_path: Path, monkeypatch) -> None:
        for wrong in ("lots", "-1", "0", "nan"):
            monkeypatch.setenv("TUNER_CACHE_GB", wrong)
            with pytest.raises(SpecError, match=f"gigabytes above 0, got '{wrong}'"):
                room.make_room(tmp_path, 1)
