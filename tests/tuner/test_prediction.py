"""Prediction of many and of long files: which are listed, how they are cut, how it is told."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
from click.testing import CliRunner, Result

from pipelines.audio import decode
from pipelines.audio.reading import Window
from pipelines.errors import AudioRejected
from tests.tuner.test_registry import make_bundle
from tuner.predict import main
from tuner.prediction.answer import predict_file, predict_open
from tuner.prediction.files import AudioFile, audio_files
from tuner.training.exported import load_bundle

RATE = 8000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("model"))


def tone(seconds: float, hz: float = 440.0) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * hz * t * (1 + t / 600))).astype("f4")


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of audio among what a disk has besides; contents do not match all the names."""
    folder = tmp_path_factory.mktemp("music")
    (folder / "b" / ".cache").mkdir(parents=True)
    soundfile.write(folder / "a.wav", tone(2), RATE)
    soundfile.write(folder / "b" / "two.MP3", tone(2, 900), RATE, format="FLAC")
    for hidden in ("._a.wav", ".hidden.wav", "b/.cache/c.wav", "notes.txt", "cover"):
        (folder / hidden).write_bytes((folder / "a.wav").read_bytes())
    (folder / "linked").symlink_to(folder / "b")
    return folder


def run(model: Path, *words: str | Path, given: str = "") -> Result:
    return CliRunner().invoke(main, [str(model), *map(str, words)], input=given)


def paths(result: Result) -> list[str]:
    return [json.loads(line)["path"] for line in result.stdout.splitlines()]


def test_a_folder_is_listed_as_a_build_lists_it(model: Path, music: Path) -> None:
    result = run(model, music, "--json")
    assert result.exit_code == 0
    # Two have names of other files and hold sound.
    names = ["a.wav", "b/two.MP3", "cover", "notes.txt"]
    assert paths(result) == [f"{music}/{name}" for name in names]
    assert "skipped 3 hidden, or no regular file; 1 links to folders" in result.stderr


def test_a_named_file_is_judged_by_its_content(model: Path, music: Path) -> None:
    result = run(model, music / "cover", music / ".hidden.wav", "--json")
    assert (result.exit_code, len(paths(result))) == (0, 2)


def test_a_list_of_files_comes_from_stdin(model: Path, music: Path, tmp_path: Path) -> None:
    listed = f"{music}/b\n\n{music}/a.wav\r\n{tmp_path}/nothing.wav\n"
    result = run(model, "-", "--json", given=listed)
    assert result.exit_code == 3
    assert paths(result) == [f"{music}/b/two.MP3", f"{music}/a.wav", f"{tmp_path}/nothing.wav"]
    empty = run(model, "-", given="\n")
    assert empty.exit_code == 2
    assert empty.stderr == "error: no audio files under the list on stdin\n"


def test_a_file_uri_is_a_path_and_a_secret_is_never_shown(model: Path, music: Path) -> None:
    assert paths(run(model, (music / "a.wav").as_uri(), "--json")) == [f"{music}/a.wav"]
    result = run(model, "https://user:secret@example.org/a.wav?token=secret")
    assert result.exit_code != 0
    assert "example.org" in result.output
    assert "secret" not in result.output


@pytest.fixture
def s3_music(music: Path) -> Iterator[str]:
    """URI of a folder with one file in a bucket of an S3 server on loopback."""
    import logging

    import pyarrow.fs
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        options = f"endpoint_override=127.0.0.1:{server.get_host_and_port()[1]}&scheme=http"
        uri = f"s3://testing:secret@music/set?{options}&region=us-east-1"
        storage, base = pyarrow.fs.FileSystem.from_uri(f"{uri}&allow_bucket_creation=true")
        storage.create_dir("music")
        with storage.open_output_stream(f"{base}/a.wav") as stream:
            stream.write((music / "a.wav").read_bytes())
        yield uri
    finally:
        server.stop()


def test_files_of_a_storage_are_read_where_they_are(
    model: Path, music: Path, s3_music: str
) -> None:
    wanted = predict_file(music / "a.wav", load_bundle(model)).probabilities
    for uri in (s3_music, s3_music.replace("?", "/a.wav?")):
        result = run(model, uri, "--json")
        assert result.exit_code == 0, result.output
        first = json.loads(result.stdout.splitlines()[0])
        assert first["path"] == "s3://music/set/a.wav"
        assert first["probabilities"] == wanted
        assert "secret" not in result.output
    missing = run(model, s3_music.replace("?", "/none.wav?"), "--json")
    assert missing.exit_code == 3
    assert json.loads(missing.stdout)["error"].startswith("E_MISSING")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes of a rising tone, ten of silence, and 20 seconds of another tone."""
    path = tmp_path_factory.mktemp("long") / "mix.flac"
    silence = np.zeros(600 * RATE, "f4")
    soundfile.write(path, np.concatenate([tone(600), silence, tone(20, 2000)]), RATE)
    return path


def test_a_long_file_is_cut_into_sections_that_vote_together(model: Path, long: Path) -> None:
    loaded = load_bundle(model)
    answer = predict_file(long, loaded)
    # four clips of each section with sound
    each = [
        loaded.clip_probabilities({RATE: decode(long, RATE, Window(start)).samples})
        for start in (0.0, 1200.0)
    ]
    wanted = np.concatenate(each).astype(float).mean(0)
    found = [answer.probabilities[label] for label in loaded.labels]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
    assert (answer.clips, answer.error) == (8, None)
    (heard,) = answer.heard
    # evenly over the section: the last clip of half a second ends with it
    assert heard.start_s[[0, 3, 4, 7]] == pytest.approx([0, 599.5, 1200, 1219.5], abs=1e-3)
    assert heard.end_s == pytest.approx(heard.start_s + 0.5)


@pytest.mark.parametrize(("seconds", "is_read"), [(660, True), (1199, True), (1210, False)])
def test_a_length_limit_counts_sound_and_silence_beyond_it(
    model: Path, tmp_path: Path, seconds: int, is_read: bool
) -> None:
    """Sound for ten minutes and silence after it, where 20 minutes are accepted."""
    sound = np.zeros(seconds * RATE, "f4")
    sound[: 600 * RATE] = tone(600)
    soundfile.write(tmp_path / "a.flac", sound, RATE)
    with AudioFile(str(tmp_path / "a.flac")).opened() as fd:
        if is_read:
            assert predict_open(fd, "a", load_bundle(model), longest_s=1200).clips == 4
        else:
            with pytest.raises(AudioRejected, match="longer than the 1200 s"):
                predict_open(fd, "a", load_bundle(model), longest_s=1200)


def test_a_long_file_that_is_silent_or_broken_is_said(model: Path, tmp_path: Path) -> None:
    loaded = load_bundle(model)
    soundfile.write(tmp_path / "silent.flac", np.zeros(700 * RATE, "f4"), RATE)
    assert str(predict_file(tmp_path / "silent.flac", loaded).error).startswith("E_SILENT")
    rng = np.random.default_rng(0).normal(0, 0.1, 700 * RATE)
    soundfile.write(tmp_path / "cut.flac", rng, RATE)
    os.truncate(tmp_path / "cut.flac", (tmp_path / "cut.flac").stat().st_size * 95 // 100)
    broken = predict_file(tmp_path / "cut.flac", loaded)
    assert broken.label is None
    assert str(broken.error).startswith("E_TRUNCATED")


def test_the_timeline_lists_the_clips_that_voted(model: Path, music: Path) -> None:
    answer = json.loads(run(model, music / "a.wav", "--json", "--timeline").stdout)
    spans = [(clip["start_s"], clip["end_s"]) for clip in answer["timeline"]]
    assert spans == [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 2.0)]
    for label, share in answer["probabilities"].items():
        each = [clip["probabilities"][label] for clip in answer["timeline"]]
        assert share == pytest.approx(np.mean(each), abs=1e-9)
    assert all(
        clip["label"] == max(clip["probabilities"], key=clip["probabilities"].get)
        for clip in answer["timeline"]
    )
    lines = run(model, music / "a.wav", "--timeline").stdout.splitlines()
    assert [line.split("  ")[1] for line in lines[1:]] == [
        "0:00.0 to 0:00.5", "0:00.5 to 0:01.0", "0:01.0 to 0:01.5", "0:01.5 to 0:02.0",
    ]  # fmt: skip


def test_tables_hold_the_numbers_of_json(model: Path, music: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "=nothing.wav"
    words: Sequence[str | Path] = (music / "a.wav", nothing)
    wanted, lost = map(json.loads, run(model, *words, "--json").stdout.splitlines())
    result = run(model, *words, "--csv")
    assert result.exit_code == 3
    table = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["label"] for row in table] == [wanted["label"], ""]
    assert table[1]["error"] == lost["error"]
    for label, share in wanted["probabilities"].items():
        assert float(table[0][f"p_{label}"]) == share
    assert run(model, *words, "--parquet", tmp_path / "out" / "p.parquet").exit_code == 3
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "p.parquet").to_pylist()
    assert [row["path"] for row in rows] == [wanted["path"], lost["path"]]
    assert rows[0]["error"] is None
    assert rows[1]["p_bass"] is None
    assert {f"p_{k}": v for k, v in wanted["probabilities"].items()}.items() <= rows[0].items()
    clips = csv.DictReader(io.StringIO(run(model, *words, "--csv", "--timeline").stdout))
    assert [row["start_s"] for row in clips] == ["0.0", "0.5", "1.0", "1.5", ""]


def test_a_relative_path_that_is_a_formula_is_quoted_in_csv(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = csv.DictReader(io.StringIO(run(model, "=1+1.wav", "--csv").stdout))
    assert [row["path"] for row in table] == ["'=1+1.wav"]


def test_names_cannot_steer_the_terminal(model: Path, music: Path, tmp_path: Path) -> None:
    name = tmp_path / "\x1b[31mred\n\u202e.wav"
    name.write_bytes((music / "a.wav").read_bytes())
    for form in ((), ("--json",), ("--csv",)):
        result = run(model, name, *form)
        assert result.exit_code == 0
        assert "\x1b" not in result.output
        assert "\u202e" not in result.output
    assert json.loads(run(model, name, "--json").stdout)["label"]


def test_two_forms_of_output_are_refused(model: Path, music: Path) -> None:
    result = run(model, music, "--json", "--csv")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--json and --csv: choose one" in result.stderr


@pytest.mark.ray
@pytest.mark.timeout(120)
@pytest.mark.usefixtures("local_ray")
def test_a_cluster_answers_as_this_machine_does(
    model: Path, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuner.prediction.cluster import Job, predict_on_cluster

    loaded = load_bundle(model)
    monkeypatch.chdir(music)
    files = [*audio_files(["b", "a.wav", "missing.wav"])]
    found = {one.path: one for one in predict_on_cluster(files, Job(loaded, "soft", True))}
    assert list(found.values()) == [predict_file(Path(p), loaded) for p in found]
    assert sorted(found) == ["a.wav", "b/two.MP3", "missing.wav"]
    assert str(found["missing.wav"].error).startswith("E_MISSING")
    assert len(found["a.wav"].heard[0].start_s) == 4
