"""What a finished feature set holds and how it is opened; made without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.build.decode import decode_here
from pipelines.errors import BuildError, SplitError, StoreError
from pipelines.features import FeatureSpec
from pipelines.features.extract import transform
from pipelines.settings import SPLITS, ClipSpec, SplitSpec
from pipelines.sources.catalog import read_catalog
from pipelines.storage import Folder
from pipelines.store import FeatureSet, find_feature_set, open_feature_set
from tests.pipelines.data_sets import build
from tests.pipelines.test_storage import stand_ins

FEATURE = FeatureSpec(sample_rate=8000, n_fft=256, hop_length=128, n_mels=20)
CLIP = ClipSpec(clip_seconds=0.4, clips_per_track=3)


def made(root: Path, out: Path, split: SplitSpec | None = None, share: float = 0.2) -> FeatureSet:
    catalog, spec = read_catalog(root), split or SplitSpec()
    return build(
        catalog, out, CLIP, FEATURE, spec, max_bad_share=share, decode=decode_here
    ).feature_set


def test_every_clip_is_the_transform_of_its_place_in_its_file(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(per_class=5)
    found = made(root, tmp_path / "out")
    rows = {row["track_id"]: row for row in found.tracks().to_pylist()}
    seen = 0
    for split in SPLITS:
        for batch in found.batches(split):
            features = batch.column("features").to_numpy_ndarray()
            assert features.dtype == np.float16
            assert features.shape[1:] == found.manifest.shape == (20, 26)
            for n, row in enumerate(batch.to_pylist()):
                track = rows[row["track_id"]]
                assert (track["split"], track["label"]) == (split, row["label"])
                samples, rate = soundfile.read(root / track["path"], dtype="float32")
                start = round(row["start_s"] * rate)
                clip = samples[start : start + round(0.4 * rate)]
                np.testing.assert_array_equal(features[n], transform(clip[None], FEATURE)[0])
                seen += 1
    assert seen == sum(found.manifest.clips.values()) == 2 * 5 * 3
    found.verify()


def test_files_are_conserved_and_rejects_listed(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(per_class=8)
    (root / "hum" / "empty.wav").write_bytes(b"")
    soundfile.write(root / "hiss" / "silent.wav", np.zeros(8000), 8000)
    short = np.random.default_rng(5).uniform(-0.5, 0.5, 1000)
    soundfile.write(root / "hiss" / "short.wav", short, 8000)
    found = made(root, tmp_path / "out")
    counts = found.manifest.tracks
    assert (counts.listed, counts.ok, counts.flagged, counts.quarantined) == (19, 16, 1, 2)
    rows = {row["path"]: row for row in found.tracks().to_pylist()}
    assert len(rows) == 19
    assert rows["hum/empty.wav"]["reason"] == "E_EMPTY"
    assert rows["hum/empty.wav"]["split"] is None
    assert rows["hiss/short.wav"]["reason"] == "W_PADDED"
    rejects = (found.path / "rejects.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in rejects] == [
        "path",
        "hiss/silent.wav",
        "hum/empty.wav",
    ]


def test_a_copy_stays_on_the_split_of_its_original(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(per_class=9)
    for take in range(9):
        samples, rate = soundfile.read(root / "hum" / f"take {take}.wav")
        soundfile.write(root / "hum" / f"copy {take}.flac", 0.5 * samples, rate)
    found = made(root, tmp_path / "out")
    split = {row["path"]: row["split"] for row in found.tracks().to_pylist()}
    for take in range(9):
        assert split[f"hum/copy {take}.flac"] == split[f"hum/take {take}.wav"]
    assert found.manifest.leakage.passed
    leaky = made(root, tmp_path / "leaky", SplitSpec(group="track", seed=1))
    assert leaky.manifest.leakage.passed, "track joins copies too"


def test_a_given_split_that_tears_copies_apart_is_told(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(per_class=6)
    samples, rate = soundfile.read(root / "hum" / "take 0.wav")
    soundfile.write(root / "hum" / "take 0 again.wav", 0.5 * samples, rate)
    splits = ["train", "train", "train", "train", "val", "test"]
    lines = ["path,label,split,album"]
    for label in ("hum", "hiss"):
        lines += [f"{label}/take {n}.wav,{label},{split},{n}" for n, split in enumerate(splits)]
    lines.append("hum/take 0 again.wav,hum,test,0")
    (root / "manifest.csv").write_text("\n".join(lines))
    found = made(root, tmp_path / "out", SplitSpec(group="album", column="split"))
    leakage = found.manifest.leakage
    assert (leakage.groups_shared, leakage.near_duplicates_shared) == (1, 1)
    assert not leakage.passed


def test_too_many_bad_files_stop_with_the_table(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(per_class=4)
    for n in range(3):
        (root / "hum" / f"empty {n}.wav").write_bytes(b"")
    with pytest.raises(BuildError) as caught:
        made(root, tmp_path / "out")
    assert "3 of 11 files" in str(caught.value)
    assert "E_EMPTY" in str(caught.value)
    assert made(root, tmp_path / "out", share=0.3).manifest.tracks.quarantined == 3


def test_a_class_without_a_usable_file_stops(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(labels=("hum", "hiss", "void"), per_class=5)
    for path in (root / "void").iterdir():
        path.write_bytes(b"")
    with pytest.raises(BuildError, match="no file of 'void'"):
        made(root, tmp_path / "out", share=0.5)


def test_a_class_that_lost_its_groups_stops(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(per_class=4)
    for n in range(2):
        (root / "hum" / f"take {n}.wav").write_bytes(b"")
    with pytest.raises(SplitError, match="hum"):
        made(root, tmp_path / "out", share=0.5)


class TestOpening:
    @pytest.fixture
    def found(self, make_folder: Callable[..., Path], tmp_path: Path) -> FeatureSet:
        return made(make_folder(per_class=3), tmp_path / "out")

    def test_the_manifest_comes_back_as_it_was(self, found: FeatureSet) -> None:
        again = open_feature_set(found.folder).manifest
        assert again == found.manifest
        assert (again.clip, again.feature, again.split) == (CLIP, FEATURE, SplitSpec())
        assert again.labels == ("hiss", "hum")

    def test_a_set_that_was_made_before_leaks_could_be_dropped(self, found: FeatureSet) -> None:
        path = found.path / "manifest.json"
        data = json.loads(path.read_text())
        del data["split"]["leaks"], data["leakage"]["dropped"], data["leakage"]["dropped_val"]
        found.folder.write_json(path.name, data)
        assert open_feature_set(found.folder).manifest == found.manifest

    def test_nothing_there_or_not_finished(self, found: FeatureSet, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"pipelines\.build"):
            open_feature_set(Folder(tmp_path / "gone"))
        (found.path / "manifest.json").unlink()
        with pytest.raises(StoreError, match="not finished"):
            open_feature_set(found.folder)

    @pytest.mark.parametrize(
        ("change", "word"), [({"version": 99}, "version 99"), ({"clips": None}, "damaged")]
    )
    def test_another_version_or_a_broken_manifest(
        self, found: FeatureSet, change: dict[str, object], word: str
    ) -> None:
        path = found.path / "manifest.json"
        found.folder.write_json(path.name, json.loads(path.read_text()) | change)
        with pytest.raises(StoreError, match=word) as caught:
            open_feature_set(found.folder)
        assert "pydantic" not in str(caught.value)
        path.write_text("{")
        with pytest.raises(StoreError, match="cannot be read"):
            open_feature_set(found.folder)

    def test_verify_finds_what_is_missing_or_cut(self, found: FeatureSet) -> None:
        found.verify()
        part = found.path / found.manifest.parts[0].path
        part.write_bytes(part.read_bytes()[:-10])
        (found.path / "tracks.parquet").unlink()
        with pytest.raises(StoreError) as caught:
            found.verify()
        assert part.name in str(caught.value)
        assert "tracks.parquet" in str(caught.value)

    def test_a_changed_byte_is_found_when_all_are_read(self, found: FeatureSet) -> None:
        found.verify(digests=True)
        part = found.path / found.manifest.parts[0].path
        data = bytearray(part.read_bytes())
        data[len(data) // 3] ^= 1
        part.write_bytes(data)
        with pytest.raises(StoreError, match=f"{part.name}.*not those that were written"):
            found.verify(digests=True)
        assert find_feature_set(found.folder) is not None
        assert find_feature_set(found.folder, digests=True) is None


@pytest.mark.timeout(20)
def test_a_set_from_someone_else_is_no_trap(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made(make_folder(per_class=5), tmp_path / "out")
    for name in (
        "manifest.json",
        "tracks.parquet",
        "decoded.parquet",
        found.manifest.parts[0].path,
    ):
        path = found.path / name
        content = path.read_bytes()
        monkeypatch.chdir(path.parent)  # the address of a socket must be short
        for make in stand_ins(path, tmp_path / "outside").values():
            path.unlink()
            make()
            with pytest.raises(StoreError, match=path.name):
                open_feature_set(found.folder).verify(digests=True)
            found.folder.remove(name)
            path.write_bytes(content)


def test_a_secret_in_a_cell_is_not_written_down(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(per_class=5)
    rows = [f"{p.relative_to(root)},{p.parent.name}" for p in sorted(root.rglob("*.wav"))]
    bad = ["s3://KEY:SECRET@b/x.wav,hum", "x.wav?X-Amz-Signature=SECRET,hum"]
    (root / "manifest.csv").write_text("\n".join(["path,label", *rows, *bad]))
    found = made(root / "manifest.csv", tmp_path / "out")
    assert found.manifest.tracks.quarantined == 2
    kept = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path.name for path in kept if b"SECRET" in path.read_bytes()]
