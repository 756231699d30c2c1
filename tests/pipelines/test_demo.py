"""The demo dataset on disk, read back with libsndfile and the csv module."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from pipelines.demo import encode, plan_tracks, write_demo
from pipelines.demo.__main__ import main
from pipelines.errors import CatalogError, SpecError, UserError

pytestmark = pytest.mark.timeout(180)  # rendering 30 tracks takes long while other processes run


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest dataset, written by two worker processes."""
    folder: Path = tmp_path_factory.mktemp("demo") / "data"
    write_demo(folder, num_tracks=30, seed=1, workers=2)
    return folder


def test_manifest_lists_every_file_with_label_and_artist(dataset):
    with (dataset / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "artist"]
    assert Counter(row["label"] for row in rows) == dict.fromkeys(
        ("house", "techno", "psytrance", "drum_and_bass", "dubstep"), 6
    )
    assert len({row["artist"] for row in rows}) == 30
    assert {row["path"] for row in rows} == {name for name in digests(dataset) if "/" in name}


def test_files_are_twelve_seconds_of_clean_stereo_in_four_formats(dataset):
    files = list(dataset.glob("*/*"))
    infos = [soundfile.info(file) for file in files]
    formats = Counter(info.format for info in infos)
    assert set(formats) == {"WAV", "FLAC", "OGG", "MP3"}
    assert max(formats.values()) - min(formats.values()) <= 2
    assert {(info.samplerate, info.channels) for info in infos} == {(44_100, 2)}
    assert all(info.duration == pytest.approx(12.0, abs=0.06) for info in infos)
    for file in files:
        assert 0.5 < np.abs(soundfile.read(file, dtype="float32")[0]).max() < 1.0, file


def test_another_process_makes_the_same_samples_and_bytes_but_for_ogg(dataset):
    # The dataset came from worker processes in any order; here four tracks, alone and reversed.
    by_format = {track.path.rpartition(".")[2]: track for track in plan_tracks(30)}
    assert set(by_format) == {"wav", "flac", "ogg", "mp3"}
    for extension, track in reversed(by_format.items()):
        again = encode(track, seed=1)
        if extension == "ogg":  # an Ogg stream has a random serial number
            copy = dataset.parent / "again.ogg"
            copy.write_bytes(again)
            samples, expected = (soundfile.read(f)[0] for f in (copy, dataset / track.path))
            np.testing.assert_array_equal(samples, expected)
        else:
            assert again == (dataset / track.path).read_bytes(), track.path
    assert encode(by_format["wav"], seed=2) != encode(by_format["wav"], seed=1)


def test_tracks_are_spread_evenly_over_artists_and_formats():
    tracks = plan_tracks(150)
    assert set(Counter((track.label, track.artist) for track in tracks).values()) == {5}
    assert len({track.artist for track in tracks}) == 30
    assert len({track.path for track in tracks}) == 150
    formats = Counter((track.label, track.path.rpartition(".")[2]) for track in tracks)
    assert set(formats.values()) <= {7, 8}  # of 30 tracks of a label
    assert tracks[:100] == plan_tracks(100)


def test_complete_dataset_is_not_written_again(dataset):
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    result = CliRunner().invoke(main, [str(dataset), "--tracks", "30", "--seed", "1"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{dataset / 'manifest.csv'}\n"
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


def test_interrupted_dataset_is_continued(dataset, tmp_path):
    # What an interruption leaves: settings, some tracks, no manifest.
    for name in digests(dataset):
        if name != "manifest.csv":
            (tmp_path / name).parent.mkdir(exist_ok=True)
            os.link(dataset / name, tmp_path / name)
    next(tmp_path.rglob("*.flac")).unlink()
    calls: list[tuple[int, int]] = []
    write_demo(tmp_path, 30, seed=1, workers=1, progress=lambda *call: calls.append(call))
    assert calls == [(30, 30)]
    assert digests(tmp_path) == digests(dataset)


def test_manifest_is_last(tmp_path):
    def stop(done: int, total: int) -> None:
        raise RuntimeError(f"stopped at {done} of {total}")

    with pytest.raises(RuntimeError, match="stopped at 1 of 30"):
        write_demo(tmp_path / "new", 30, workers=1, progress=stop)
    assert not (tmp_path / "new" / "manifest.csv").exists()
    assert json.loads((tmp_path / "new" / "demo.json").read_text())["tracks"] == 30


@pytest.mark.parametrize(("tracks", "seed"), [(31, 1), (30, 2)])
def test_other_settings_in_the_same_folder_are_refused(dataset, tracks, seed):
    with pytest.raises(CatalogError, match=rf"seed 1, tracks 30.*seed {seed}, tracks {tracks}"):
        write_demo(dataset, tracks, seed=seed)


def test_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(CatalogError, match="not empty"):
        write_demo(tmp_path, 30)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]
    with pytest.raises(UserError, match=r"cannot write .*holiday\.txt"):
        write_demo(tmp_path / "holiday.txt", 30)


@pytest.mark.parametrize(("tracks", "seed", "message"), [(29, 0, "at least 30"), (30, -1, "seed")])
def test_wrong_numbers_are_refused(tmp_path, tracks, seed, message):
    words = [str(tmp_path / "data"), "--tracks", str(tracks), "--seed", str(seed)]
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: the ")
    assert message in result.stderr
    assert not (tmp_path / "data").exists()
    with pytest.raises(SpecError, match=message):
        write_demo(tmp_path / "data", tracks, seed=seed)


def test_help_loads_no_heavy_library():
    code = (
        "import atexit, sys, pipelines.demo.__main__ as d\n"
        "heavy = {'numpy', 'scipy', 'torch', 'ray', 'mlflow'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules))))\n"
        "d.main(['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
