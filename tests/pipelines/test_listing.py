"""Manifests: dialects, faults, and what the rows alone say of their files."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import CatalogError
from pipelines.sources.catalog import read_catalog
from pipelines.sources.tracks import Track, name_tracks
from tests.pipelines.data_sets import codes, touch, write

NFC, NFD = (unicodedata.normalize(form, "é.wav") for form in ("NFC", "NFD"))


class TestManifest:
    @pytest.mark.parametrize("mark", [",", ";", "\t"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
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
        assert catalog.root == str(tmp_path)

    def test_a_folder_with_a_manifest_is_read_by_it(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/1.wav", "b/2.wav", "b/3.wav", "b/notes.txt")
        write(tmp_path, "path,label\n./a//1.wav,x\nb\\2.wav,y\n")
        catalog = read_catalog(tmp_path)
        assert [(t.path, t.label) for t in catalog.tracks] == [("a/1.wav", "x"), ("b/2.wav", "y")]
        assert catalog.unlisted == ("b/3.wav",)

    def test_the_layout_can_be_told(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/1.wav", "b/2.wav")
        write(tmp_path, "path,origin\na/1.wav,x\nb/2.wav,y\n")
        with pytest.raises(CatalogError, match=r"no column label.*--label COLUMN"):
            read_catalog(tmp_path)
        assert [t.label for t in read_catalog(tmp_path, "folders").tracks] == ["a", "b"]
        assert [t.label for t in read_catalog(tmp_path, label="origin").tracks] == ["x", "y"]
        with pytest.raises(CatalogError, match="'origin' must be a column"):
            read_catalog(tmp_path, "folders", label="origin")

    def test_parquet(self, tmp_path: Path) -> None:
        table = pyarrow.table(
            {
                "path": ["1.wav", "2.wav", "3.wav", "4.wav"],
                "label": pyarrow.array(["a", "b", None, "b"]).dictionary_encode(),
                "fold": [1.0, None, float("nan"), 2.5],
                "take": [1, None, 3, 4],
            }
        )
        pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
        catalog = read_catalog(tmp_path / "m.parquet")
        columns = [dict(t.columns) for t in catalog.tracks]
        assert [c["fold"] for c in columns] == ["1", "", "", "2.5"]
        assert [c["take"] for c in columns] == ["1", "", "3", "4"]
        assert [code for _, _, code in codes(catalog)] == ["", "", "E_LABEL", ""]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", ["empty", "path,label"]),
            ("path,label\n", ["no rows"]),
            ("file,label\n1.wav,a\n", ["no column path", "found file, label"]),
            ("Path,label\n1.wav,a\n", ["no column path", "is 'Path' the column path?"]),
            ("path,label,label\n1.wav,a,b\n", ["duplicate columns: label"]),
            ("path,label\n,a\n2.wav,b\n", ["no path in 1 rows: 2"]),
            ("path,label\n1.wav,a\n2.wav,b,c\n", ["other than 2 cells: 3"]),
            ('path,label\n"1.wav,a\n', ["line 2"]),
            ("path,label\n1.wav,a\n2.wav,a\n", ["a single class ('a')"]),
            ("path,label\n1.wav,\n2.wav,\n", ["no usable row"]),
            (b"path,label\n1.wav,caf\xe9\n", ["not UTF-8", "byte 20"]),
            ("path,label\n1.wav," + "a" * 10_000_000, ["line 2", "field larger"]),
            ("path,label\n1.wav,a\0\n", ["line 2"]),
        ],
    )
    def test_faults_are_named(self, tmp_path: Path, text: str | bytes, words: list[str]) -> None:
        with pytest.raises(CatalogError) as caught:
            read_catalog(write(tmp_path, text))
        assert all(word in str(caught.value) for word in words), str(caught.value)

    def test_lines_are_counted_as_in_an_editor(self, tmp_path: Path) -> None:
        text = 'path,label,note\n1.wav,a,"two\nlines"\n\n2.wav,b,x,y\n'
        with pytest.raises(CatalogError, match=r"cells: 5;"):
            read_catalog(write(tmp_path, text))

    def test_rows_have_verdicts_and_do_not_stop_the_others(self, tmp_path: Path) -> None:
        rows = [
            "1.wav,a,p", "2.wav,b,p",
            "3.wav,,p", "4.wav,NaN,p", "none.wav,none,p",
            "5.wav,a,p", "5.wav,a,p", "./5.wav,a,q",
            "6.wav,a,p", "6.wav,b,p", "6.wav,,p",
        ]  # fmt: skip
        catalog = read_catalog(write(tmp_path, "path,label,artist\n" + "\n".join(rows)))
        assert sorted(codes(catalog)) == [
            ("1.wav", "a", ""),
            ("2.wav", "b", ""),
            ("3.wav", "", "E_LABEL"),
            ("4.wav", "", "E_LABEL"),
            ("5.wav", "a", ""),
            ("5.wav", "a", "E_DUP_ROW"),
            ("5.wav", "a", "E_DUP_ROW"),
            ("6.wav", "", "E_LABEL"),
            ("6.wav", "a", "E_LABEL_CONFLICT"),
            ("6.wav", "b", "E_LABEL_CONFLICT"),
            ("none.wav", "none", ""),
        ]
        assert len({t.track_id for t in catalog.tracks}) == len(rows)
        details = {detail for _, detail in catalog.rejected.values()}
        assert {"listed before", "listed before, with other columns"} <= details
        assert "listed as 'a' and as 'b'" in details

    def test_segments_of_a_file_are_tracks(self, tmp_path: Path) -> None:
        rows = ["1.wav,a,,", "1.wav,a,0,1.5", "1.wav,b,1.5,", "1.wav,b,1.50,", "2.wav,b,,2"]
        text = "path,label,start_s,end_s\n" + "\n".join(rows)
        catalog = read_catalog(write(tmp_path, text))
        assert [(t.path, t.label, t.start_s, t.end_s) for t in catalog.tracks] == [
            ("1.wav", "a", 0.0, 1.5),
            ("1.wav", "a", 0.0, None),
            ("1.wav", "b", 1.5, None),
            ("1.wav", "b", 1.5, None),
            ("2.wav", "b", 0.0, 2.0),
        ]
        assert catalog.columns == ()
        assert [code for code, _ in catalog.rejected.values()] == ["E_DUP_ROW"]

    @pytest.mark.parametrize(
        "segment", ["x,", "-1,", "2,1", "1,1", "nan,", ",nan", ",inf", "inf,", '"1,5",2']
    )
    def test_a_segment_that_is_none_is_named_with_its_line(
        self, tmp_path: Path, segment: str
    ) -> None:
        text = f"path,label,start_s,end_s\n1.wav,a,,\n2.wav,b,{segment}\n"
        with pytest.raises(CatalogError, match=r"start_s >= 0.*lines 3 \(start_s"):
            read_catalog(write(tmp_path, text))

    def test_a_row_finds_its_file_in_another_unicode_form(self, tmp_path: Path) -> None:
        touch(tmp_path, NFD, "2.wav")
        catalog = read_catalog(write(tmp_path, f"path,label\n{NFC},a\n2.wav,b\n"))
        assert {t.path for t in catalog.tracks} == {NFD, "2.wav"}
        assert catalog.unlisted == ()
        touch(tmp_path, NFC)
        both = read_catalog(tmp_path)
        assert {t.path for t in both.tracks} == {NFC, "2.wav"}
        assert both.unlisted == (NFD,)
        assert {t.track_id for t in both.tracks} == {t.track_id for t in catalog.tracks}

    def test_a_manifest_that_links_out_of_its_folder(self, tmp_path: Path) -> None:
        write(tmp_path, "path,label\n1.wav,a\n2.wav,b\n", "elsewhere.csv")
        root = touch(tmp_path / "data", "1.wav")
        (root / "manifest.csv").symlink_to(tmp_path / "elsewhere.csv")
        with pytest.raises(CatalogError, match="no class folder"):
            read_catalog(root, "folders")
        with pytest.raises(CatalogError, match="leads out"):
            read_catalog(root)
        assert read_catalog(root / "manifest.csv").root == str(tmp_path)


listed_rows = st.lists(
    st.tuples(
        st.sampled_from(["a.wav", "A.wav", "b.wav", NFC, NFD]),
        st.sampled_from(["x", "y", ""]),
        st.sampled_from([{}, {"artist": "p"}, {"artist": "q"}]),
        st.sampled_from([(0.0, None), (1.0, 2.0)]),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(rows=listed_rows, shuffle=st.randoms(use_true_random=False))
def test_every_row_is_a_track_and_its_name_and_verdict_do_not_depend_on_the_order(
    rows: list, shuffle: random.Random
) -> None:
    listed = [
        Track.listed(path, label, columns, *segment) for path, label, columns, segment in rows
    ]
    tracks, rejected = name_tracks(listed)
    assert len(tracks) == len(listed) == len({t.track_id for t in tracks})
    assert sorted((t.path, t.label, t.start_s) for t in tracks) == sorted(
        (row.path, row.label, row.start_s) for row in listed
    )
    used = [t for t in tracks if t.track_id not in rejected]
    assert len({(t.path, t.start_s, t.end_s) for t in used}) == len(used)
    assert all(t.label for t in used)
    mixed = list(listed)
    shuffle.shuffle(mixed)
    assert name_tracks(mixed) == (tracks, rejected)
