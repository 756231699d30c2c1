"""Folders of splits or folds above the class folders, and files by content."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import CatalogError
from pipelines.settings import SplitSpec
from pipelines.sources.catalog import read_catalog
from pipelines.splits.assign import given_splits
from pipelines.splits.decide import check_splits
from tests.pipelines.test_chunks import WAV, mp3
from tuner.prediction.files import audio_files

MATROSKA = b"\x1a\x45\xdf\xa3" + bytes(100)


def folders(root: Path, *paths: str, content: bytes = WAV[:2000]) -> Path:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content + bytes([number]))
    return root


def everywhere(*tops: str) -> list[str]:
    return [f"{top}/{one}/{n}.wav" for top in tops for one in ("blues", "jazz") for n in range(3)]


@pytest.mark.parametrize(
    "tops",
    [
        ("train", "valid", "test"), ("Training", "Validation", "Testing"),
        ("train-audio", "dev-audio", "eval-audio"), ("test", "train", "val"),
    ],
)  # fmt: skip
def test_folders_of_a_split_are_the_split(tmp_path: Path, tops: tuple[str, ...]) -> None:
    catalog = read_catalog(folders(tmp_path, *everywhere(*tops)))
    assert {track.label for track in catalog.tracks} == {"blues", "jazz"}
    spec = catalog.as_given(SplitSpec())
    splits = given_splits(catalog.tracks, spec)
    for track in catalog.tracks:
        top = track.path.partition("/")[0].lower()
        expected = "train" if "tr" in top else "test" if "test" in top or "eval" in top else "val"
        assert splits[track.track_id] == expected
    assert any("are read as a split" in line for line in catalog.notes)
    check_splits(catalog, SplitSpec(group="track"))


def test_a_split_that_is_asked_for_replaces_that_of_the_folders(tmp_path: Path) -> None:
    catalog = read_catalog(folders(tmp_path, *everywhere("train", "valid", "test")))
    asked = SplitSpec(train=0.5, val=0.25, test=0.25)
    assert catalog.as_given(asked) is asked


def test_folders_of_folds_are_folds_of_which_the_last_two_are_set_apart(tmp_path: Path) -> None:
    tops = [f"fold{n}" for n in range(1, 11)]
    catalog = read_catalog(folders(tmp_path, *everywhere(*tops)))
    assert {track.label for track in catalog.tracks} == {"blues", "jazz"}
    splits = given_splits(catalog.tracks, catalog.as_given(SplitSpec()))
    found = {track.columns["fold"]: splits[track.track_id] for track in catalog.tracks}
    assert (found["fold9"], found["fold10"]) == ("val", "test")
    assert [found[name] for name in tops].count("train") == 8


def test_a_split_that_lacks_a_part_stops_with_what_to_do(tmp_path: Path) -> None:
    folders(tmp_path, *everywhere("train", "test"))
    with pytest.raises(CatalogError, match=r"look like a split without val; .* manifest\.csv"):
        read_catalog(tmp_path)


@pytest.mark.parametrize(
    "paths",
    [
        ["train/1.wav", "plane/1.wav", "test/1.wav"],  # sounds of vehicles
        ["train/a/1.wav", "valid/b/1.wav", "test/c/1.wav"],  # albums
        [*everywhere("train", "valid", "test"), "other/1.wav"],
    ],
)
def test_classes_that_are_called_like_splits_stay_classes(
    tmp_path: Path, paths: list[str]
) -> None:
    catalog = read_catalog(folders(tmp_path, *paths))
    assert catalog.given is None
    assert {track.label for track in catalog.tracks} >= {"train", "test"}


def test_files_are_audio_by_content(tmp_path: Path) -> None:
    frames = mp3(2)
    frames = frames[frames.find(b"\xff\xfb", 100) :]
    folders(tmp_path, "a/1.webm", "a/2.weba", "a/3.mka", content=MATROSKA)
    folders(tmp_path, "b/1.mp2", "b/2", "b/3.xyz", content=frames)
    folders(tmp_path, "c/1.wave", "c/2.wav ", content=WAV[:2000])
    folders(tmp_path, "d/1.sph", content=b"NIST_1A\n   1024\n")
    folders(tmp_path, "d/2.tta", content=b"TTA1")
    folders(tmp_path, "e/1.m4b", "e/2.3gp", content=b"\0\0\0\x20ftypM4B ")
    catalog = read_catalog(tmp_path)
    assert {track.label: 0 for track in catalog.tracks} == dict.fromkeys("abcde", 0)
    assert len(catalog.tracks) == 12
    assert (catalog.ignored, catalog.lost) == (0, ())
    # Prediction takes the same files of a folder.
    found = [file.path for file in audio_files([str(tmp_path)])]
    assert found == sorted(track.path for track in catalog.tracks)


def test_a_folder_without_audio_is_lost_and_its_files_are_named(tmp_path: Path) -> None:
    folders(tmp_path, "a/1.wav", "b/1.wav")
    folders(tmp_path, "c/notes.txt", "c/more.txt")
    for name in ("notes", "more"):
        (tmp_path / f"c/{name}.txt").write_text("some words")
    folders(tmp_path, "c/cover.jpg", content=b"\xff\xd8\xff\xe0")
    folders(tmp_path, "c/empty", content=b"")
    (tmp_path / "c/empty").write_bytes(b"")
    catalog = read_catalog(tmp_path)
    (line,) = catalog.lost
    assert line.startswith("the folder 'c' has no audio and is no class: ")
    for kind in ("2 text", "1 a JPEG picture", "1 empty"):
        assert kind in line
    assert catalog.ignored == 4
    told: list[str] = []
    assert len(list(audio_files([str(tmp_path)], note=told.append))) == 2
    assert "2 text" in told[0]


@pytest.mark.parametrize(
    ("one", "other"), [("Rock", "rock"), ("alpha ", "alpha"), ("a b", "A  B")]
)
def test_classes_that_a_person_takes_for_one_are_told(
    tmp_path: Path, one: str, other: str
) -> None:
    catalog = read_catalog(folders(tmp_path, f"{one}/1.wav", f"{other}/1.wav"))
    assert any("differ only in" in line and repr(one) in line for line in catalog.notes)
