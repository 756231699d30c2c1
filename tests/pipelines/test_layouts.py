"""Published data sets, laid out as their authors publish them."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from pipelines.errors import CatalogError
from pipelines.settings import SplitSpec
from pipelines.sources.catalog import read_catalog
from pipelines.splits.assign import given_splits, outside_split
from tests.pipelines.data_sets import touch


class TestEsc50:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        # lines of the published table
        (tmp_path / "meta").mkdir()
        (tmp_path / "meta" / "esc50.csv").write_text(
            "filename,fold,target,category,esc10,src_file,take\n"
            "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
            "1-100038-A-14.wav,1,14,chirping_birds,False,100038,A\n"
            "1-17367-A-10.wav,1,10,rain,True,17367,A\n"
            "5-9032-A-0.wav,5,0,dog,True,9032,A\n"
        )
        names = ["1-100032-A-0.wav", "1-100038-A-14.wav", "1-17367-A-10.wav", "extra.wav"]
        return touch(tmp_path, *(f"audio/{name}" for name in names))

    def test_folds_groups_and_classes(self, root: Path) -> None:
        catalog = read_catalog(root)
        assert (catalog.layout, catalog.columns) == ("esc50", ("group", "fold"))
        assert [(t.path, t.label, dict(t.columns)) for t in catalog.tracks] == [
            ("audio/1-100032-A-0.wav", "dog", {"group": "100032", "fold": "1"}),
            ("audio/1-100038-A-14.wav", "chirping_birds", {"group": "100038", "fold": "1"}),
            ("audio/1-17367-A-10.wav", "rain", {"group": "17367", "fold": "1"}),
            ("audio/5-9032-A-0.wav", "dog", {"group": "9032", "fold": "5"}),
        ]
        assert catalog.unlisted == ("audio/extra.wav",)
        spec = SplitSpec(column="fold", val_values=("4",), test_values=("5",))
        assert Counter(given_splits(catalog.tracks, spec).values()) == {"train": 3, "test": 1}

    def test_its_subset(self, root: Path) -> None:
        catalog = read_catalog(root, "esc10")
        assert {t.label for t in catalog.tracks} == {"dog", "rain"}
        assert (catalog.ignored, catalog.unlisted) == (1, ())

    def test_a_table_that_is_not_its(self, root: Path) -> None:
        (root / "meta" / "esc50.csv").write_text("filename,category\n1.wav,dog\n")
        with pytest.raises(CatalogError, match="no column fold and esc10 and src_file"):
            read_catalog(root)


class TestGtzan:
    @pytest.mark.parametrize(
        ("base", "ending"), [("genres/", "au"), ("Data/genres_original/", "wav"), ("", "au")]
    )
    def test_the_filtered_split(self, tmp_path: Path, base: str, ending: str) -> None:
        from torchaudio.datasets import gtzan

        names = [
            f"{base}{genre}/{genre}.{number:05d}.{ending}"
            for genre in gtzan.gtzan_genres
            for number in range(100)
        ]
        root = touch(tmp_path, *names) / ("Data" if base.startswith("Data") else "")
        catalog = read_catalog(root)
        assert (catalog.layout, catalog.columns, len(catalog.tracks)) == (
            "gtzan",
            ("split",),
            1000,
        )
        assert Counter(t.label for t in catalog.tracks) == dict.fromkeys(gtzan.gtzan_genres, 100)
        spec = SplitSpec(column="split")
        splits = given_splits(catalog.tracks, spec)
        # the sizes that the authors of the filtered split publish
        assert Counter(splits.values()) == {"train": 443, "val": 197, "test": 290}
        outside = outside_split(catalog.tracks, spec)
        assert len(outside) == 70
        assert not outside.keys() & splits.keys()
        assert {code for code, _ in outside.values()} == {"E_SPLIT"}
        assert "'unused'" in next(iter(outside.values()))[1]
        assert outside_split(catalog.tracks, SplitSpec()) == {}
        on_split = {Path(t.path).stem: splits.get(t.track_id) for t in catalog.tracks}
        assert {name for name, split in on_split.items() if split == "test"} == set(
            gtzan.filtered_test
        )

    def test_folders_with_its_genres_are_not_it(self, tmp_path: Path) -> None:
        root = touch(tmp_path, "blues/my song.wav", "rock/other.wav")
        assert read_catalog(root).layout == "folders"
        with pytest.raises(CatalogError, match="not GTZAN"):
            read_catalog(root, "gtzan")


class TestFma:
    # the three lines of the published header, with the columns between left out
    HEADER = (
        (",album,artist,artist,artist,set,set,track,track"),
        (",id,bio,id,name,split,subset,genre_top,title"),
        ("track_id,,,,,,,,"),
    )
    ROWS = (
        ("2", "1", "<p>A,\n\"b\"</p>", "1", "AWOL", "training", "small", "Hip-Hop", "Food"),
        ("3", "1", "", "1", "AWOL", "test", "medium", "Rock", "Electric Ave"),
        ("5", "1", "", "6", "Nicky Cook", "validation", "small", "Rock", "This World"),
        ("145610", "1", "b" * 200_000, "6", "Ünï", "test", "small", "Rock", "x"),
        ("20", "4", "", "4", "Nicky Cook", "training", "large", "", "Spiritual Level"),
    )  # fmt: skip

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "fma_metadata").mkdir()
        with (tmp_path / "fma_metadata" / "tracks.csv").open("w", newline="") as file:
            file.write("".join(f"{line}\n" for line in self.HEADER))
            csv.writer(file, lineterminator="\n").writerows(self.ROWS)
        return touch(tmp_path, "fma_small/000/000002.mp3", "fma_small/145/145610.mp3")

    def test_the_small_subset(self, root: Path) -> None:
        catalog = read_catalog(root)
        assert catalog.layout == "fma"
        assert [(t.path, t.label) for t in catalog.tracks] == [
            ("fma_small/000/000002.mp3", "Hip-Hop"),
            ("fma_small/000/000005.mp3", "Rock"),
            ("fma_small/145/145610.mp3", "Rock"),
        ]
        assert dict(catalog.tracks[2].columns) == {
            "split": "test",
            "subset": "small",
            "artist": "6",
            "artist_name": "Ünï",
            "album": "1",
        }
        splits = given_splits(catalog.tracks, SplitSpec(column="split"))
        assert list(splits.values()) == ["train", "val", "test"]

    def test_a_larger_subset_holds_the_smaller_ones(self, root: Path) -> None:
        touch(root, "fma_large/000/000002.mp3")
        catalog = read_catalog(root)
        assert [t.path for t in catalog.tracks] == [
            f"fma_large/{name}.mp3" for name in ("000/000002", "000/000003", "000/000005")
        ] + ["fma_large/145/145610.mp3"]
        assert catalog.ignored == 1
        assert "1 tracks of fma_large have no top genre" in catalog.notes[0]

    def test_the_folder_of_a_subset_is_enough(self, root: Path) -> None:
        touch(root, "fma_medium/000/000002.mp3")
        catalog = read_catalog(root / "fma_small")
        assert catalog.root == str(root)
        assert {t.path.partition("/")[0] for t in catalog.tracks} == {"fma_small"}
        assert len(catalog.tracks) == 3

    def test_the_columns_agree_with_pandas(self, root: Path) -> None:
        pandas = pytest.importorskip("pandas")
        table = pandas.read_csv(
            root / "fma_metadata" / "tracks.csv", index_col=0, header=[0, 1], dtype=str
        )  # as the data set's own program reads it
        small = table[table["set", "subset"] == "small"]
        catalog = read_catalog(root)
        assert [t.columns["artist_name"] for t in catalog.tracks] == list(small["artist", "name"])
        assert [t.label for t in catalog.tracks] == list(small["track", "genre_top"])

    def test_lines_within_cells_are_no_rows_however_long_the_table(self, root: Path) -> None:
        # the published table has 260 MB, and is read in blocks of 16 MiB
        with (root / "fma_metadata" / "tracks.csv").open("a", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            for number in range(1000, 1040):
                row = [str(number), *self.ROWS[0][1:]]
                row[2] = "\n" * 500_000
                table.writerow(row)
        assert len(read_catalog(root).tracks) == 3 + 40

    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("track_id,genre\n2,Rock\n", "header must have three lines"),
            ("\n".join(HEADER) + "\nx,,,,,training,small,Rock,\n", "'x' is not a track number"),
            ("\n".join(HEADER) + "\n2,,,,,training,large,Rock,\n", "lists no track of fma_small"),
            ("\n".join(HEADER) + "\n2,,,\n", "not a readable table"),
        ],
    )
    def test_faults_are_named(self, root: Path, text: str, word: str) -> None:
        (root / "fma_metadata" / "tracks.csv").write_text(text)
        with pytest.raises(CatalogError, match=word):
            read_catalog(root)

    def test_metadata_without_audio(self, root: Path) -> None:
        (root / "fma_small").rename(root / "audio")
        with pytest.raises(CatalogError, match="fma_small next to it"):
            read_catalog(root)


class TestRealData:
    def test_a_manifest_with_groups_and_folds(self, shared_data: Path) -> None:
        catalog = read_catalog(shared_data / "esc10")
        assert (len(catalog.tracks), catalog.columns) == (400, ("group", "fold"))
        assert (catalog.rejected, catalog.unlisted) == ({}, ())
        assert Counter(t.columns["fold"] for t in catalog.tracks) == dict.fromkeys("12345", 80)

    def test_odd_files_by_their_folders_or_by_a_column(self, shared_data: Path) -> None:
        odd = shared_data / "oddaudio"
        folders = read_catalog(odd, "folders")
        column = read_catalog(odd, label="origin")
        assert {t.label for t in folders.tracks} <= {t.label for t in column.tracks}
        # every audio file there is listed by its row, whatever its name
        assert {t.path for t in folders.tracks} <= {t.path for t in column.tracks}

    def test_a_folder_for_each_class(self, shared_data: Path) -> None:
        catalog = read_catalog(shared_data / "pyaa3" / "3_class")
        found = list((shared_data / "pyaa3" / "3_class").rglob("*.wav"))
        assert len(catalog.tracks) == len(found)
        assert {t.label for t in catalog.tracks} == {p.parent.name for p in found}
