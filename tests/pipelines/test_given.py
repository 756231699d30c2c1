"""Folders of splits or folds above the class folders, and files by content."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import CatalogError
from pipelines.settings import SplitSpec
from pipelines.sources.catalog import read_catalog
from pipelines.splits.assign import given_splits
from pipelines.splits.decide import check_splits
from pipelines.storage import Folder
from tests.pipelines.test_chunks import WAV, mp3
from tuner.config import loads
from tuner.prediction.files import audio_files
from tuner.study.surroundings import AtHand

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


def test_folders_that_no_person_made_do_not_hide_a_split(tmp_path: Path) -> None:
    folders(tmp_path, *everywhere("training", "valid", "test"), "__MACOSX/._a", ".cache/x/1.wav")
    catalog = read_catalog(tmp_path)
    assert {track.columns["split"] for track in catalog.tracks} == {"train", "val", "test"}
    assert catalog.lost == ()


@pytest.mark.parametrize("tops", [("train", "valid", "test"), ("fold1", "fold2", "fold3")])
def test_a_folder_beside_a_split_is_named_or_stops(tmp_path: Path, tops: tuple[str, ...]) -> None:
    folders(tmp_path, *everywhere(*tops))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "read me.txt").write_text("some words")
    catalog = read_catalog(tmp_path)
    assert {track.label for track in catalog.tracks} == {"blues", "jazz"}
    assert catalog.lost == ("the folder 'docs' has no audio and is no part of it",)
    folders(tmp_path, "docs/1.wav")
    with pytest.raises(CatalogError, match=r"but docs beside them holds audio .* manifest\.csv"):
        read_catalog(tmp_path)


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
    (tmp_path / "d").mkdir()
    catalog = read_catalog(tmp_path)
    line, empty = catalog.lost
    assert empty == "the folder 'd' has no audio and is no class: it is empty"
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


def table(root: Path, name: str, *lines: str) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines))
    return root


@pytest.mark.parametrize("name", ["labels.csv", "metadata.csv", "Manifest.csv"])
def test_a_manifest_of_another_name_beside_a_folder_of_audio(tmp_path: Path, name: str) -> None:
    folders(tmp_path, "audio/1.wav", "audio/2.wav")
    catalog = read_catalog(table(tmp_path, name, "path,label", "1.wav,a", "2.wav,b"))
    assert catalog.layout == "manifest"
    assert [(t.path, t.label) for t in catalog.tracks] == [
        ("audio/1.wav", "a"),
        ("audio/2.wav", "b"),
    ]
    assert catalog.notes == ("the paths are below the folder audio",)


def test_a_table_of_classes_beside_their_folders_changes_nothing(tmp_path: Path) -> None:
    folders(tmp_path, "a/1.wav", "b/2.wav")
    catalog = read_catalog(table(tmp_path, "metadata.csv", "path,genre,year", "a/1.wav,x,1990"))
    assert catalog.layout == "folders"


@pytest.mark.parametrize("column", ["genre", "class", "category", "target"])
def test_the_column_of_classes_is_proposed(tmp_path: Path, column: str) -> None:
    folders(tmp_path, "audio/1.wav", "audio/2.wav")
    table(tmp_path, "metadata.csv", f"path,{column}", "1.wav,a", "2.wav,b")
    with pytest.raises(CatalogError, match=f"write --label {column}"):
        read_catalog(tmp_path)
    catalog = read_catalog(tmp_path / "metadata.csv", label=column)
    assert [track.label for track in catalog.tracks] == ["a", "b"]


def test_paths_that_are_absolute_and_inside_are_inside(tmp_path: Path) -> None:
    folders(tmp_path, "1.wav", "2.wav")
    rows = [f"{tmp_path}/1.wav;a", f"{tmp_path}/2.wav;b"]
    catalog = read_catalog(table(tmp_path, "manifest.csv", "sep=;", "path;label", *rows))
    assert [(t.path, t.label) for t in catalog.tracks] == [("1.wav", "a"), ("2.wav", "b")]


def test_faulty_lines_below_a_separator_keep_their_numbers(tmp_path: Path) -> None:
    table(tmp_path, "manifest.csv", "sep=;", "path;label", "1.wav;a", "2.wav;b;c")
    with pytest.raises(CatalogError, match="lines with other than 2 cells: 4;"):
        read_catalog(tmp_path)


def test_urbansound8k_as_published(tmp_path: Path) -> None:
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    rows = [
        f"{n}-{one}-0-0.wav,{n},0,4,1,{1 + n % 10},{one},{name}"
        for n in range(30)
        for one, name in enumerate(("dog_bark", "siren"))
    ]
    table(tmp_path, "metadata/UrbanSound8K.csv", header, *rows)
    folders(tmp_path, *(f"audio/fold{r.split(',')[5]}/{r.split(',')[0]}" for r in rows))
    catalog = read_catalog(tmp_path)
    assert (catalog.layout, len(catalog.tracks), catalog.unlisted) == ("urbansound8k", 60, ())
    assert {track.label for track in catalog.tracks} == {"dog_bark", "siren"}
    splits = given_splits(catalog.tracks, catalog.as_given(SplitSpec()))
    by_fold = {track.columns["fold"]: splits[track.track_id] for track in catalog.tracks}
    assert (by_fold["9"], by_fold["10"], by_fold["1"]) == ("val", "test", "train")


def test_speech_commands_as_published(tmp_path: Path) -> None:
    words = [f"{word}/{n:08x}_nohash_0.wav" for word in ("yes", "no") for n in range(9)]
    folders(tmp_path, *words, "_background_noise_/doing_the_dishes.wav")
    table(tmp_path, "validation_list.txt", *words[6:8], *words[15:17])
    table(tmp_path, "testing_list.txt", words[8], words[17])
    catalog = read_catalog(tmp_path)
    assert catalog.layout == "speech_commands"
    assert {track.label for track in catalog.tracks} == {"yes", "no"}
    splits = given_splits(catalog.tracks, catalog.as_given(SplitSpec()))
    by_path = {track.path: splits[track.track_id] for track in catalog.tracks}
    assert [by_path[path] for path in words[5:9]] == ["train", "val", "val", "test"]
    assert catalog.tracks[0].columns["group"] == "00000000"
    assert any("1 files of _background_noise_ are no words" in line for line in catalog.notes)


@pytest.mark.parametrize("base", ["recordings/", ""])
def test_spoken_digits_as_published(tmp_path: Path, base: str) -> None:
    people = ("jackson", "theo")
    names = [f"{base}{d}_{one}_{n}.wav" for d in range(10) for one in people for n in range(12)]
    catalog = read_catalog(folders(tmp_path, *names))
    assert (catalog.layout, len(catalog.tracks)) == ("fsdd", 240)
    assert {track.label for track in catalog.tracks} == set("0123456789")
    splits = given_splits(catalog.tracks, catalog.as_given(SplitSpec()))
    assert sorted(splits.values()).count("test") == 100
    assert sorted(splits.values()).count("val") == 100


def test_settings_that_fit_the_data_keep_its_split(tmp_path: Path) -> None:
    """A file of ours would rather have folds for so few tracks."""
    folders(tmp_path, *everywhere("train", "valid", "test"), content=WAV)
    text = f"name: s\ndata: {{root: {tmp_path}, split: auto}}\nmodel: {{name: cnn}}\n"
    space = loads(text, around=AtHand(Folder.at(tmp_path / ".results")))
    assert space.template.data.num_folds == 0
    (choice,) = space.choices
    assert "are the split instead of shares" in choice.reason


def test_another_split_is_not_called_the_given_one(tmp_path: Path) -> None:
    for number in range(1, 5):
        for label in ("a", "b"):
            (tmp_path / f"fold{number}" / label).mkdir(parents=True)
            (tmp_path / f"fold{number}" / label / "x.wav").write_bytes(b"RIFF")
    catalog = read_catalog(tmp_path)
    told = [line for line in catalog.told(SplitSpec()) if "read as a split" in line]
    assert len(told) == 1
    assert told[0].endswith("classes: fold3 validates, fold4 tests")
    for other in (
        SplitSpec(train=0.8, val=0.1, test=0.1),
        SplitSpec(column="fold", val_values=("fold1",), test_values=("fold2",)),
    ):
        assert not any("read as a split" in line for line in catalog.told(other))
