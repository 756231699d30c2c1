"""Reuse of earlier builds, without Ray: batches are decoded in this process."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import soundfile

from pipelines.build.building import build_sets
from pipelines.build.console import summary
from pipelines.build.decode import DecodeBatch, Verdicts, decode_here
from pipelines.build.options import BuildOptions
from pipelines.build.progress import BuildProgress
from pipelines.build.reuse import track_keys
from pipelines.build.tasks import DecodeJob
from pipelines.errors import BuildError, StorageTakenError, StoreError
from pipelines.features import FeatureSpec
from pipelines.settings import SPLITS, ClipSpec, SplitSpec
from pipelines.sources.catalog import read_catalog
from pipelines.sources.tracks import Catalog, Track
from pipelines.storage import Folder, lease
from pipelines.store import FeatureSet
from tests.object_store import BUCKET, Proxy, variables
from tests.pipelines.data_sets import build

FEATURE = FeatureSpec(sample_rate=8000, n_fft=256, hop_length=128, n_mels=20)
CLIP = ClipSpec(clip_seconds=0.4, clips_per_track=3)
SPECS = (CLIP, FEATURE, SplitSpec())

DECODING = threading.Lock()
Pass = Iterator[tuple[DecodeBatch, Verdicts]]


class Watched:
    """A decode pass in this process that remembers which files it was given."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.paths: list[str] = []
        self.outputs: list[tuple[int, ...]] = []
        self._stop_after = stop_after

    def __call__(self, job: DecodeJob, batches: Sequence[DecodeBatch]) -> Pass:
        for done in decode_here(job, list(itertools.islice(batches, self._stop_after))):
            self.paths += [task.track.path for task in done[0]]
            self.outputs += [task.outputs for task in done[0]]
            yield done
        if self._stop_after is not None:
            raise KeyboardInterrupt


def contents(found: FeatureSet) -> dict[tuple[str, int], tuple[str, str, bytes]]:
    """(path, clip) -> split, class and features, read with plain pyarrow."""
    paths = {row["track_id"]: row["path"] for row in found.tracks().to_pylist()}
    rows: dict[tuple[str, int], tuple[str, str, bytes]] = {}
    for split in SPLITS:
        for file in sorted((found.path / f"clips/split={split}").glob("*.parquet")):
            table = pyarrow.parquet.read_table(file)
            features = table["features"].combine_chunks().to_numpy_ndarray()
            for n, row in enumerate(table.select(["track_id", "clip", "label"]).to_pylist()):
                key = paths[row["track_id"]], row["clip"]
                assert key not in rows
                rows[key] = split, row["label"], features[n].tobytes()
    return rows


def test_a_stopped_build_goes_on_where_it_was(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    catalog = read_catalog(make_folder(per_class=6))
    first, second = Watched(stop_after=5), Watched()
    with pytest.raises(KeyboardInterrupt):
        build(catalog, tmp_path / "out", *SPECS, decode=first)
    result = build(catalog, tmp_path / "out", *SPECS, decode=second)
    assert len(first.paths) == 5
    assert sorted(first.paths + second.paths) == [track.path for track in catalog.tracks]
    assert (result.resumed_tracks, result.reused) == (5, False)
    fresh = build(catalog, tmp_path / "other", *SPECS, decode=decode_here)
    assert [part.digest for part in result.feature_set.manifest.parts] == [
        part.digest for part in fresh.feature_set.manifest.parts
    ]
    assert not [path for path in (tmp_path / "out/.staging").iterdir() if path.is_dir()]


def test_a_file_that_is_added_changed_or_removed_costs_itself(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(per_class=6)
    before = build(read_catalog(root), tmp_path / "out", *SPECS, decode=decode_here)
    soundfile.write(root / "hum/new.wav", np.random.default_rng(7).uniform(-1, 1, 8000), 8000)
    soundfile.write(root / "hiss/take 1.wav", np.random.default_rng(8).uniform(-1, 1, 8000), 8000)
    (root / "hiss/take 2.wav").unlink()
    (root / "hiss/take 3.wav").rename(root / "hum/take 3 moved.wav")
    watched = Watched()
    after = build(read_catalog(root), tmp_path / "out", *SPECS, decode=watched)
    assert sorted(watched.paths) == ["hiss/take 1.wav", "hum/new.wav"]
    assert after.feature_set.path != before.feature_set.path
    fresh = build(read_catalog(root), tmp_path / "other", *SPECS, decode=decode_here)
    assert contents(after.feature_set) == contents(fresh.feature_set)
    assert after.feature_set.manifest.labels == ("hiss", "hum")


@pytest.mark.parametrize("moment", [1, 12])
def test_a_build_that_was_taken_over_ends_and_harms_nothing(
    make_folder: Callable[..., Path], object_store: Proxy, tmp_path: Path, monkeypatch, moment: int
) -> None:
    """It is frozen after so many files, while another process takes its leases."""
    for name, value in variables(object_store.address).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lease, "RENEW_SECONDS", 60.0)
    out = Folder.at(f"s3://{BUCKET}/taken over {moment}")
    catalog = read_catalog(make_folder(per_class=6))
    taken = '{"epoch": 9, "holder": "process 2 on other", "renewals": 0}'
    done = list[object]()

    def frozen(job: DecodeJob, batches: Sequence[DecodeBatch]) -> Pass:
        for found in decode_here(job, batches):
            done.append(found)
            if len(done) == moment:
                monkeypatch.setattr(lease, "RENEW_SECONDS", 0.0)
                staging.write_text(locks()[-1], taken)
            yield found

    def locks() -> list[str]:
        return staging.names("*.lock")

    staging = out / ".staging"
    with pytest.raises(StorageTakenError, match="another process has taken it over"):
        build(catalog, out, *SPECS, decode=frozen)
    assert len(done) == moment
    assert [name for name in out.names() if "." not in name] == []
    assert staging.read_text(locks()[-1]) == taken
    assert len([name for name in staging.names() if ".lock" not in name]) == 1
    staging.write_text(locks()[-1], taken.replace("process 2 on other", ""))
    monkeypatch.setattr(lease, "RENEW_SECONDS", 60.0)
    again = build(catalog, out, *SPECS, decode=decode_here)
    fresh = build(catalog, tmp_path / "fresh", *SPECS, decode=decode_here)
    assert contents(again.feature_set) == contents(fresh.feature_set)


def test_another_split_decodes_nothing(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    catalog = read_catalog(make_folder(per_class=6))
    build(catalog, tmp_path / "out", *SPECS, decode=decode_here)
    watched = Watched()
    other = SplitSpec(train=0.5, val=0.25, test=0.25, seed=3)
    result = build(catalog, tmp_path / "out", CLIP, FEATURE, other, decode=watched)
    assert watched.paths == []
    fresh = build(catalog, tmp_path / "other", CLIP, FEATURE, other, decode=decode_here)
    assert contents(result.feature_set) == contents(fresh.feature_set)


def test_a_rejected_file_is_not_tried_again_unless_it_may_be_there_now(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(per_class=6)
    (root / "hum/empty.wav").write_bytes(b"")
    (root / "hum/gone.wav").symlink_to(root / "nowhere.wav")
    build(read_catalog(root), tmp_path / "out", *SPECS, decode=decode_here)
    watched = Watched()
    build(read_catalog(root), tmp_path / "out", CLIP, FEATURE, SplitSpec(seed=1), decode=watched)
    assert watched.paths == ["hum/gone.wav"]


def test_sets_of_one_rate_share_the_decoding_and_all_share_the_splits(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    catalog = read_catalog(make_folder(per_class=6))
    specs = [
        (CLIP, FEATURE),
        (CLIP, FeatureSpec(kind="stft", sample_rate=8000, n_fft=128, hop_length=64)),
        (CLIP, FeatureSpec(sample_rate=4000, n_fft=128, hop_length=64, n_mels=10)),
    ]
    watched = Watched()
    results = build_sets(
        catalog, tmp_path / "out", specs, SplitSpec(), BuildOptions(decode=watched)
    )
    assert sorted(watched.paths) == [track.path for track in catalog.tracks]
    assert set(watched.outputs) == {(0, 1, 2)}
    splits = []
    for (clip, feature), result in zip(specs, results, strict=True):
        assert result.feature_set.manifest.feature == feature
        alone = build(
            catalog, tmp_path / feature.kind, clip, feature, SplitSpec(), decode=decode_here
        )
        assert contents(result.feature_set) == contents(alone.feature_set)
        splits.append({key: split for key, (split, *_) in contents(result.feature_set).items()})
    assert splits[0] == splits[1] == splits[2]
    # one set more later: only this one is made
    more = [*specs, (ClipSpec(clip_seconds=0.3, clips_per_track=1), FEATURE)]
    watched = Watched()
    again = build_sets(catalog, tmp_path / "out", more, SplitSpec(), BuildOptions(decode=watched))
    assert [result.reused for result in again] == [True, True, True, False]
    assert set(watched.outputs) == {(0,)}


def test_verify_reads_all_files_and_mends_what_is_damaged(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(per_class=6)
    for path in root.rglob("*.wav"):
        os.utime(path, (1e9, 1e9))  # what was written a moment ago is not trusted anyway
    catalog = read_catalog(root)
    first = build(catalog, tmp_path / "out", *SPECS, decode=decode_here).feature_set
    wanted = contents(first)
    assert build(catalog, tmp_path / "out", *SPECS, verify=True, decode=decode_here).reused

    part = first.path / first.manifest.parts[0].path
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 255
    part.write_bytes(data)
    assert build(catalog, tmp_path / "out", *SPECS, decode=decode_here).reused
    mended = build(catalog, tmp_path / "out", *SPECS, verify=True, decode=decode_here)
    assert not mended.reused
    assert contents(mended.feature_set) == wanted

    # a file with other bytes, and the size and time of change that it had
    victim = root / "hum/take 0.wav"
    data = bytearray(victim.read_bytes())
    data[2000:2400] = bytes(400)
    victim.write_bytes(data)
    os.utime(victim, (1e9, 1e9))
    assert build(catalog, tmp_path / "out", *SPECS, decode=decode_here).reused
    watched = Watched()
    changed = build(catalog, tmp_path / "out", *SPECS, verify=True, decode=watched)
    assert watched.paths == ["hum/take 0.wav"]
    assert changed.feature_set.path != first.path


def test_exact_copies_are_used_once_and_come_back_when_the_first_goes(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(per_class=6)
    (root / "hum/take 0 again.wav").write_bytes((root / "hum/take 0.wav").read_bytes())
    samples, rate = soundfile.read(root / "hiss/take 0.wav", dtype="int16")
    soundfile.write(root / "hum/not hiss.flac", samples, rate)
    found = build(read_catalog(root), tmp_path / "out", *SPECS, decode=decode_here).feature_set
    reasons = {row["path"]: row["reason"] for row in found.tracks().to_pylist() if row["reason"]}
    assert reasons == {
        "hum/take 0.wav": "E_DUP",  # a space is before a dot, and the first by path is kept
        "hiss/take 0.wav": "E_LABEL_CONFLICT",
        "hum/not hiss.flac": "E_LABEL_CONFLICT",
    }
    (root / "hum/take 0 again.wav").unlink()
    (root / "hum/not hiss.flac").unlink()
    after = build(read_catalog(root), tmp_path / "out", *SPECS, decode=decode_here).feature_set
    fresh = build(read_catalog(root), tmp_path / "other", *SPECS, decode=decode_here).feature_set
    assert after.manifest.tracks.quarantined == 0
    assert contents(after) == contents(fresh)


def test_leaks_that_are_dropped_cost_no_decoding_and_have_a_set_of_their_own(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(per_class=6)
    samples, _ = soundfile.read(root / "hum/take 0.wav")
    soundfile.write(root / "hum/take 0.flac", 0.5 * samples, 8000)  # softer, and 16 bits again
    lines = ["path,label,split", "hum/take 0.flac,hum,train"]
    for label, take in itertools.product(("hum", "hiss"), range(6)):
        lines.append(f"{label}/take {take}.wav,{label},{('test', 'val', 'train')[min(take, 2)]}")
    (root / "manifest.csv").write_text("\n".join(lines))
    catalog = read_catalog(root)
    reported = SplitSpec(column="split")
    leaky = build(catalog, tmp_path / "out", CLIP, FEATURE, reported, decode=decode_here)
    watched = Watched()
    dropped = SplitSpec(column="split", leaks="drop")
    honest = build(catalog, tmp_path / "out", CLIP, FEATURE, dropped, decode=watched)
    assert watched.paths == []
    assert honest.feature_set.path != leaky.feature_set.path

    before, after = leaky.feature_set.manifest, honest.feature_set.manifest
    assert (before.leakage.passed, before.leakage.dropped) == (False, 0)
    assert (after.leakage.passed, after.leakage.dropped) == (True, 1)
    assert after.split == dropped
    tracks = after.tracks
    assert (tracks.listed, tracks.quarantined, tracks.ok + tracks.flagged) == (13, 1, 12)
    assert after.verdicts["hum"].quarantined == 1
    assert after.reasons["E_LEAK"].examples == ("hum/take 0.flac",)
    rows = {row["path"]: row for row in honest.feature_set.tracks().to_pylist()}
    left_out = rows["hum/take 0.flac"]
    assert (left_out["verdict"], left_out["reason"]) == ("quarantined", "E_LEAK")
    assert (left_out["split"], left_out["clips"]) == (None, 0)
    text = "in train, and the same recording as hum/take 0.wav, which is in test"
    assert left_out["detail"] == text
    assert text in (honest.feature_set.path / "rejects.csv").read_text()
    kept = {key: row for key, row in contents(leaky.feature_set).items() if ".wav" in key[0]}
    assert contents(honest.feature_set) == kept
    shown = summary(honest.feature_set)
    assert "no group and no recording appears in more than one split; 1 tracks dropped" in shown

    # and back: what was left out has rows in the other set
    watched = Watched()
    again = build(catalog, tmp_path / "out", CLIP, FEATURE, reported, decode=watched)
    assert (again.reused, watched.paths) == (True, [])


def test_the_one_recording_that_esc10_has_in_two_folds_is_learned_from_or_tested(
    shared_data: Path, tmp_path: Path
) -> None:
    catalog = read_catalog(shared_data / "esc10")
    tracks = tuple(t for t in catalog.tracks if t.label in ("baby_cry", "person_sneeze"))
    catalog = replace(catalog, tracks=tracks)
    split = SplitSpec(column="fold", val_values=("4",), test_values=("5",), leaks="drop")
    short = ClipSpec(clip_seconds=1.0, clips_per_track=1)
    found = build(catalog, tmp_path / "out", short, FEATURE, split, decode=decode_here).feature_set
    left_out = [row for row in found.tracks().to_pylist() if row["verdict"] == "quarantined"]
    assert [(row["path"], row["detail"]) for row in left_out] == [
        (
            "004 - Baby cry/3-151080-A.ogg",
            "in train, and the same recording as 004 - Baby cry/5-151085-A.ogg, which is in test",
        )
    ]
    assert found.manifest.clips == {"train": 47, "val": 16, "test": 16}
    assert (found.manifest.leakage.passed, found.manifest.leakage.dropped) == (True, 1)


def test_clips_split_one_by_one_are_marked_as_leaky(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    catalog = read_catalog(make_folder(per_class=8))
    leaky = SplitSpec(unit="clip", train=0.5, val=0.25, test=0.25)
    found = build(catalog, tmp_path / "out", CLIP, FEATURE, leaky, decode=decode_here).feature_set
    assert found.manifest.clips == {"train": 24, "val": 12, "test": 12}
    assert not found.manifest.leakage.passed
    assert found.manifest.leakage.clip_split
    assert {row["split"] for row in found.tracks().to_pylist()} >= {"several"}
    rows = contents(found)
    honest = build(catalog, tmp_path / "out", *SPECS, decode=decode_here).feature_set
    assert {key: row[1:] for key, row in rows.items()} == {
        key: row[1:] for key, row in contents(honest).items()
    }


def test_progress_counts_up_to_all_files(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(per_class=6)
    (root / "hum" / "empty.wav").write_bytes(b"")
    seen: list[BuildProgress] = []
    build(read_catalog(root), tmp_path / "out", *SPECS, progress=seen.append, decode=decode_here)
    assert seen[0] == BuildProgress(files=0, listed=13, rejected=0, clips=0, resumed=0)
    assert seen[-1] == BuildProgress(files=13, listed=13, rejected=1, clips=36, resumed=0)
    assert [one.files for one in seen] == sorted(one.files for one in seen)


def test_a_listed_checksum_is_compared(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(per_class=3)
    lines = ["path,label,md5"]
    for label, take in itertools.product(("hum", "hiss"), range(3)):
        lines.append(f"{label}/take {take}.wav,{label},")
    # md5 of b"abc", from RFC 1321
    lines[1] += "900150983cd24fb0d6963f7d28e17f72"
    (root / "manifest.csv").write_text("\n".join(lines) + "\nhum/extra.wav,hum,\n")
    soundfile.write(root / "hum/extra.wav", np.random.default_rng(9).uniform(-1, 1, 8000), 8000)
    found = build(read_catalog(root), tmp_path / "out", *SPECS, decode=decode_here).feature_set
    rows = {row["path"]: row for row in found.tracks().to_pylist()}
    assert rows["hum/take 0.wav"]["reason"] == "E_CHECKSUM"
    assert "900150983cd24fb0d6963f7d28e17f72 is listed" in rows["hum/take 0.wav"]["detail"]
    assert found.manifest.tracks.quarantined == 1


def test_a_build_that_stops_leaves_a_list_of_what_is_bad(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(labels=("hum", "hiss", "void"), per_class=5)
    for path in (root / "void").iterdir():
        path.write_bytes(b"")
    catalog = read_catalog(root)
    with pytest.raises(BuildError, match="5 of 15 files cannot be used, more than the 20%") as bad:
        build(catalog, tmp_path / "out", *SPECS, decode=decode_here)
    file = Path(str(bad.value).rpartition(": ")[2])
    lines = file.read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [
        [f"void/take {n}.wav", "void", "E_EMPTY"] for n in range(5)
    ]
    with pytest.raises(BuildError, match="no file of 'void' can be used"):
        build(catalog, tmp_path / "out", *SPECS, max_bad_share=0.5, decode=decode_here)
    kept = build(
        catalog,
        tmp_path / "out",
        *SPECS,
        max_bad_share=0.5,
        drop_lost_classes=True,
        decode=decode_here,
    )
    assert kept.feature_set.manifest.labels == ("hiss", "hum")
    assert kept.feature_set.manifest.tracks.quarantined == 5


@pytest.mark.parametrize("name", ["part", "decoded.parquet"])
def test_damaged_rows_are_not_reused(
    make_folder: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    catalog = read_catalog(make_folder(per_class=6))
    first = build(catalog, tmp_path / "out", *SPECS, decode=decode_here).feature_set
    path = first.path / (first.manifest.parts[0].path if name == "part" else name)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 255
    path.write_bytes(data)
    watched, other = Watched(), SplitSpec(seed=5)
    found = build(catalog, tmp_path / "out", CLIP, FEATURE, other, decode=watched).feature_set
    assert sorted(watched.paths) == [track.path for track in catalog.tracks]
    fresh = build(catalog, tmp_path / "new", CLIP, FEATURE, other, decode=decode_here).feature_set
    assert contents(found) == contents(fresh)


def test_a_folder_that_cannot_be_made_is_one_line(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    catalog = read_catalog(make_folder(per_class=3))
    with pytest.raises(StoreError, match=r"cannot be written to .*file/out: Not a directory"):
        build(catalog, tmp_path / "file" / "out", *SPECS, decode=decode_here)


def test_everything_that_rows_come_from_is_in_the_key_of_a_track() -> None:
    def key(path: str = "a/x.wav", **more: Any) -> str:
        content = more.pop("content", "0" * 32)
        track = Track("id", path, "a", **more)
        catalog = Catalog("/data", (track,), "manifest")
        return track_keys(catalog, {path: content})["id"]

    others = [
        key(content="1" * 32),
        key(start_s=1.0),
        key(end_s=2.0),
        key("a/x.flac"),  # W_EXT
        key(columns={"md5": "9" * 32}),
    ]
    assert len({key(), *others}) == 6
    assert key("b/other name.wav", columns={"artist": "A"}) == key()


def test_a_file_that_changes_during_the_build_is_not_used_and_tried_again(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(per_class=6)
    victim = root / "hum/take 0.wav"
    before = victim.read_bytes()

    def swap(job: DecodeJob, batches: Sequence[DecodeBatch]) -> Pass:
        victim.write_bytes((root / "hiss/take 0.wav").read_bytes())
        yield from decode_here(job, batches)

    found = build(read_catalog(root), tmp_path / "out", *SPECS, decode=swap).feature_set
    reasons = {row["path"]: row["reason"] for row in found.tracks().to_pylist() if row["reason"]}
    assert reasons == {"hum/take 0.wav": "E_CHANGED"}
    victim.write_bytes(before)
    watched = Watched()
    build(read_catalog(root), tmp_path / "out", CLIP, FEATURE, SplitSpec(seed=2), decode=watched)
    assert watched.paths == ["hum/take 0.wav"]


def test_two_copies_of_a_folder_build_one_set_at_a_time(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    roots = [make_folder(per_class=6), tmp_path / "copy"]
    shutil.copytree(roots[0], roots[1])
    with ThreadPoolExecutor(2) as threads:
        made = list(
            threads.map(
                lambda root: build(read_catalog(root), tmp_path / "out", *SPECS, decode=in_turn),
                roots,
            )
        )
    assert made[0].feature_set.path == made[1].feature_set.path
    assert sorted(result.reused for result in made) == [False, True]
    made[0].feature_set.verify(digests=True)


def in_turn(job: DecodeJob, batches: Sequence[DecodeBatch]) -> Pass:
    """The decoder of this process is for one thread."""
    with DECODING:
        yield from decode_here(job, batches)
