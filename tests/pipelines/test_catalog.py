"""Folders of classes: what is listed, and what is not."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from pipelines.errors import CatalogError
from pipelines.sources.catalog import read_catalog
from tests.pipelines.data_sets import touch, write

NFC, NFD = (unicodedata.normalize(form, "é.wav") for form in ("NFC", "NFD"))


class TestFolders:
    def test_the_first_level_is_the_class(self, tmp_path: Path) -> None:
        root = touch(
            tmp_path,
            "drum and bass/a b.WAV",
            "drum and bass/album/disc 1/c.flac",
            "hörspiel/d.Mp3",
            "no/e.opus",
            "1e3/name.with.dots.m4a",
        )
        catalog = read_catalog(root)
        assert [(t.path, t.label) for t in catalog.tracks] == [
            ("1e3/name.with.dots.m4a", "1e3"),
            ("drum and bass/a b.WAV", "drum and bass"),
            ("drum and bass/album/disc 1/c.flac", "drum and bass"),
            ("hörspiel/d.Mp3", "hörspiel"),
            ("no/e.opus", "no"),
        ]
        assert (catalog.layout, catalog.columns, catalog.root) == ("folders", (), str(root))
        assert (catalog.rejected, catalog.remarks, catalog.unlisted) == ({}, {}, ())

    def test_what_is_no_candidate_is_counted(self, tmp_path: Path) -> None:
        root = touch(tmp_path, "a/1.wav", "b/2.wav", "a/cover.jpg", "readme.txt", "b/Thumbs.db")
        touch(root, "a/.DS_Store", "a/._1.wav", ".git/3.wav", "__MACOSX/a/._1.wav")
        os.mkfifo(root / "a" / "pipe.wav")
        (root / "a" / "zero.wav").symlink_to("/dev/zero")
        catalog = read_catalog(root)
        assert [t.path for t in catalog.tracks] == ["a/1.wav", "b/2.wav"]
        # .git and __MACOSX are one each: hidden folders are not entered
        assert catalog.ignored == 9

    def test_audio_beside_the_class_folders_is_told(self, tmp_path: Path) -> None:
        catalog = read_catalog(touch(tmp_path, "a/1.wav", "b/2.wav", "loose.wav"))
        assert catalog.unlisted == ("loose.wav",)

    def test_pointers_of_git_lfs_are_counted_and_named(self, tmp_path: Path) -> None:
        # as in the specification of git-lfs
        pointer = (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{'4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393'}\n"
            "size 12345\n"
        )
        root = touch(tmp_path, "a/1.wav", "b/2.wav")
        (root / "a" / "1.wav").write_text(pointer)
        write(root / "a", b"R" * len(pointer), "short.wav")
        catalog = read_catalog(root)
        assert [t.path for t in catalog.tracks] == ["a/short.wav", "b/2.wav"]
        assert catalog.ignored == 1
        assert "git lfs pull" in catalog.notes[0]
        (root / "a" / "short.wav").write_text(pointer)
        (root / "b" / "2.wav").write_text(pointer)
        with pytest.raises(CatalogError, match="git lfs pull"):
            read_catalog(root)

    def test_a_link_to_a_file_is_listed_whatever_it_leads_to(self, tmp_path: Path) -> None:
        root = touch(tmp_path, "a/1.wav", "b/2.wav")
        (root / "a" / "link.wav").symlink_to(root / "b" / "2.wav")
        (root / "a" / "gone.wav").symlink_to(root / "nothing")
        assert len(read_catalog(root).tracks) == 4

    def test_a_link_to_a_folder_is_an_error_when_audio_would_be_lost(self, tmp_path: Path) -> None:
        root = touch(tmp_path / "data", "a/1.wav", "b/2.wav")
        touch(tmp_path / "notes", "x.txt")
        (root / "a" / "notes").symlink_to(tmp_path / "notes")
        (root / "again").symlink_to(root / "a")
        catalog = read_catalog(root)
        assert (len(catalog.tracks), catalog.ignored) == (2, 2)
        assert "2 links to folders" in catalog.notes[0]
        touch(tmp_path / "other", "deep/3.wav")
        (root / "c").symlink_to(tmp_path / "other")
        with pytest.raises(CatalogError, match="data/c is a link to a folder with audio"):
            read_catalog(root)

    def test_names_equal_but_for_case_or_unicode_form_are_both_used(self, tmp_path: Path) -> None:
        names = [f"a/{NFC}", f"a/{NFD}", "a/X.wav", "a/x.wav", "b/1.wav"]
        catalog = read_catalog(touch(tmp_path, *names))
        assert sorted(t.path for t in catalog.tracks) == sorted(names)
        assert len({t.track_id for t in catalog.tracks}) == 5
        flagged = {t.path for t in catalog.tracks if t.track_id in catalog.remarks}
        assert flagged == set(names[:4])
        assert set(catalog.remarks.values()) == {("W_NAME_COLLISION",)}
        assert catalog.rejected == {}

    def test_two_unicode_forms_of_a_folder_are_one_class(self, tmp_path: Path) -> None:
        catalog = read_catalog(
            touch(tmp_path, f"{NFC}/1.ogg", f"{NFD}/2.ogg", "Rock/3.ogg", "rock/4.ogg")
        )
        assert {t.label for t in catalog.tracks} == {NFC, "Rock", "rock"}
        assert catalog.notes == ("the classes 'Rock' and 'rock' differ only in case",)

    @pytest.mark.parametrize(
        ("names", "word"),
        [
            ((), "no audio below"),
            (("a/notes.txt",), "no audio below"),
            (("1.wav", "2.wav"), "no class folder"),
            (("a/1.wav", "a/2.wav"), "a single class \\('a'\\)"),
        ],
    )
    def test_what_cannot_be_used(self, tmp_path: Path, names: tuple[str, ...], word: str) -> None:
        root = touch(tmp_path / "data", *names)
        root.mkdir(exist_ok=True)
        with pytest.raises(CatalogError, match=word):
            read_catalog(root)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(CatalogError, match="nothing at"):
            read_catalog(tmp_path / "gone")
