from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from pipelines.catalog import read_catalog
from pipelines.errors import AudioRejected, CatalogError
from pipelines.tracks import locate, printable, track_id


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def write(root: Path, text: str | bytes, name: str = "manifest.csv") -> Path:
    root.mkdir(exist_ok=True)
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


class TestFolders:
    def test_the_first_level_is_the_class(self, tmp_path: Path) -> None:
        root = touch(
            tmp_path,
            "drum and bass/a b.WAV",
            "drum and bass/album/disc 1/c.flac",
            "hörspiel/d.Mp3",
            "no/e.opus",
        )
        catalog = read_catalog(root)
        assert [(t.path, t.label) for t in catalog.tracks] == [
            ("drum and bass/a b.WAV", "drum and bass"),
            ("drum and bass/album/disc 1/c.flac", "drum and bass"),
            ("hörspiel/d.Mp3", "hörspiel"),
            ("no/e.opus", "no"),
        ]
        assert (catalog.layout, catalog.columns, catalog.root) == ("folders", (), root)

    def test_what_is_not_audio_is_counted_and_hidden_files_are_not(self, tmp_path: Path) -> None:
        root = touch(tmp_path, "a/1.wav", "b/2.wav", "a/cover.jpg", "readme.txt", "loose.wav")
        touch(tmp_path, "a/.DS_Store", "a/._1.wav", ".git/3.wav")
        catalog = read_catalog(root)
        assert len(catalog.tracks) == 2
        assert catalog.ignored == 3

    def test_pipes_and_devices_are_not_listed(self, tmp_path: Path) -> None:
        root = touch(tmp_path, "a/1.wav", "b/2.wav")
        os.mkfifo(root / "a" / "pipe.wav")
        assert len(read_catalog(root).tracks) == 2

    def test_a_link_to_a_file_is_listed_and_one_to_a_folder_refused(self, tmp_path: Path) -> None:
        root = touch(tmp_path / "data", "a/1.wav", "b/2.wav")
        (root / "a" / "link.wav").symlink_to(root / "b" / "2.wav")
        assert len(read_catalog(root).tracks) == 3
        touch(tmp_path / "other", "3.wav")
        (root / "c").symlink_to(tmp_path / "other")
        with pytest.raises(CatalogError, match="link to a folder"):
            read_catalog(root)

    @pytest.mark.parametrize(
        ("names", "word"),
        [
            ((), "no audio below"),
            (("a/notes.txt",), "no audio below"),
            (("1.wav", "2.wav"), "no folder for a class"),
            (("a/1.wav", "a/2.wav"), "one class only, 'a'"),
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


class TestManifest:
    @pytest.mark.parametrize("mark", [",", ";", "\t"])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("bom", ["", "\ufeff"])
    def test_dialects(self, tmp_path: Path, mark: str, end: str, bom: str) -> None:
        rows = [["path", "label", "artist"], ["a/1.wav", "no", f'"x{mark}y"'], ["2.wav", "on", ""]]
        text = bom + end.join(mark.join(row) for row in rows) + end
        catalog = read_catalog(write(tmp_path, text))
        assert [(t.path, t.label, dict(t.columns)) for t in catalog.tracks] == [
            ("2.wav", "on", {"artist": ""}),
            ("a/1.wav", "no", {"artist": f"x{mark}y"}),
        ]
        assert catalog.columns == ("artist",)
        assert catalog.root == tmp_path

    def test_a_folder_with_a_manifest_is_read_by_it(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/1.wav", "b/2.wav", "b/3.wav")
        write(tmp_path, "path,label\na/1.wav,x\nb/2.wav,y\n")
        assert [t.label for t in read_catalog(tmp_path).tracks] == ["x", "y"]

    def test_parquet(self, tmp_path: Path) -> None:
        table = pyarrow.table({"path": ["1.wav", "2.wav"], "label": ["a", "b"], "fold": [1, None]})
        pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
        tracks = read_catalog(tmp_path / "m.parquet").tracks
        assert [dict(t.columns) for t in tracks] == [{"fold": "1"}, {"fold": ""}]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", ["empty", "path,label"]),
            ("path,label\n", ["no rows"]),
            ("file,label\n1.wav,a\n", ["no column path", "found file, label"]),
            ("Path,label\n1.wav,a\n", ["no column path", "'path' meant"]),
            ("path,label\n1.wav,a\n2.wav,\n", ["no label in 1 rows: 3"]),
            ("path,label\n,a\n2.wav,b\n", ["no path in 1 rows: 2"]),
            ("path,label\n1.wav,a\n1.wav,b\n", ["more than once: 1.wav"]),
            ("path,label\n1.wav,a\n2.wav,b,c\n", ["other than 2 cells: 3"]),
            ('path,label\n"1.wav,a\n', ["line 2"]),
            ("path,label\n1.wav,a\n2.wav,a\n", ["one class only"]),
            (b"path,label\n1.wav,caf\xe9\n", ["not UTF-8", "byte 20"]),
            ("path,label\n1.wav," + "a" * 200_000, ["line 2"]),
        ],
    )
    def test_faults_are_named(self, tmp_path: Path, text: str | bytes, words: list[str]) -> None:
        with pytest.raises(CatalogError) as caught:
            read_catalog(write(tmp_path, text))
        assert all(word in str(caught.value) for word in words), str(caught.value)

    def test_two_unicode_forms_of_a_name_are_one(self, tmp_path: Path) -> None:
        forms = [unicodedata.normalize(form, "é.wav") for form in ("NFC", "NFD")]
        text = f"path,label\n{forms[0]},a\n{forms[1]},b\n"
        with pytest.raises(CatalogError, match="equal once written alike"):
            read_catalog(write(tmp_path, text))


def test_a_track_is_named_by_its_path_alone() -> None:
    # blake2b of the UTF-8 bytes, from `b2sum -l 64`
    assert track_id("a/1.wav") == "3046e171c16b846f"
    assert track_id("é") == track_id("e\u0301")


@pytest.mark.parametrize("path", ["../x.wav", "a/../../x.wav", "/etc/passwd", "a\0b"])
def test_paths_that_lead_out(tmp_path: Path, path: str) -> None:
    with pytest.raises(AudioRejected) as caught:
        locate(tmp_path.resolve(), path)
    assert caught.value.code == "E_PATH_ESCAPE"


def test_links_that_lead_out_or_nowhere(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", "a/1.wav").resolve()
    touch(tmp_path, "secret.wav")
    (root / "out.wav").symlink_to(tmp_path / "secret.wav")
    (root / "up").symlink_to(tmp_path)
    (root / "gone.wav").symlink_to(root / "nothing")
    (root / "in.wav").symlink_to(root / "a" / "1.wav")
    for path, expected in [
        ("out.wav", "E_PATH_ESCAPE"),
        ("up/secret.wav", "E_PATH_ESCAPE"),
        ("gone.wav", "E_MISSING"),
        ("nothing.wav", "E_MISSING"),
    ]:
        with pytest.raises(AudioRejected) as caught:
            locate(root, path)
        assert caught.value.code == expected
    assert locate(root, "in.wav") == root / "a" / "1.wav"


def test_names_that_are_not_utf8_can_be_written_down() -> None:
    assert printable(os.fsdecode(b"caf\xe9")) == r"caf\udce9"
    assert printable("é") == "é"
