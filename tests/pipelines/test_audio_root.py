"""A table in one place and its audio in another, with classes in a column of any name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipelines.build.__main__ import main as build
from pipelines.build.building import build_sets
from pipelines.build.decode import decode_here
from pipelines.build.options import BuildOptions
from pipelines.errors import BuildError, CatalogError
from pipelines.settings import SplitSpec
from pipelines.sources.catalog import read_catalog
from tests.pipelines.test_building import CLIP, FEATURE
from tuner.init import main as init
from tuner.run import main as run

Apart = tuple[Path, Path]
SPACE = Path(__file__).resolve().parents[2] / "search_spaces/quickstart.yaml"


@pytest.fixture
def apart(make_folder: Callable[..., Path], tmp_path: Path) -> Apart:
    """A table ``tables/songs.csv`` with the columns path and genre, and audio elsewhere."""
    audio = make_folder(("hum", "hiss"), per_class=5, name="audio files")
    lines = [f"{p.relative_to(audio)},{p.parent.name}" for p in sorted(audio.rglob("*.wav"))]
    table = tmp_path / "tables/songs.csv"
    table.parent.mkdir()
    table.write_text("\n".join(["path,genre", *lines]))
    return table, audio


def test_paths_start_at_the_root_of_the_audio(apart: Apart) -> None:
    table, audio = apart
    catalog = read_catalog(table, label="genre", audio_root=audio)
    assert catalog.root == str(audio)
    assert {track.path for track in catalog.tracks} == {
        str(path.relative_to(audio)) for path in audio.rglob("*.wav")
    }
    assert {track.label for track in catalog.tracks} == {"hum", "hiss"}
    assert catalog.unlisted == ()


def test_absolute_paths_below_the_root_and_audio_without_a_row(apart: Apart) -> None:
    table, audio = apart
    rows = table.read_text().splitlines()
    table.write_text("\n".join([rows[0], *(f"{audio}/{row}" for row in rows[1:-1])]))
    catalog = read_catalog(table, label="genre", audio_root=audio)
    assert len(catalog.tracks) == 9
    assert catalog.unlisted == (rows[-1].partition(",")[0],)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("nowhere", "nowhere is no folder; name the one that the paths"),
        ("tables/songs.csv", "songs.csv is no folder; name the one that the paths"),
    ],
)
def test_a_root_that_is_none_is_named(apart: Apart, root: str, message: str) -> None:
    table, audio = apart
    with pytest.raises(CatalogError, match=message):
        read_catalog(table, label="genre", audio_root=audio.parent / root)


def test_class_folders_have_no_other_root(apart: Apart) -> None:
    _, audio = apart
    with pytest.raises(CatalogError, match=r"only for a manifest, but .* is read as folders"):
        read_catalog(audio, audio_root=audio)


def test_a_build_and_a_study_take_both(
    apart: Apart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, audio = apart
    monkeypatch.chdir(tmp_path)
    where = ["--label", "genre", "--audio-root", audio.name]
    refused = CliRunner().invoke(build, [str(table), "--out", "out"])
    assert refused.exit_code == 2
    assert "--label genre" in refused.output
    shown = CliRunner().invoke(
        run, [str(SPACE), "--data", str(table), *where, "--name", "apart", "--dry-run"]
    )
    assert shown.exit_code == 0, shown.output
    printed = CliRunner().invoke(run, [str(SPACE), "--data", str(table), *where, "--print-config"])
    data = yaml.safe_load(printed.stdout)["data"]
    assert (data["label"], data["audio_root"]) == ("genre", audio.name)


def test_rows_of_a_table_elsewhere_are_built(apart: Apart, tmp_path: Path) -> None:
    table, audio = apart
    catalog = read_catalog(table, label="genre", audio_root=audio)
    options = BuildOptions(decode=decode_here)
    built = build_sets(catalog, tmp_path / "out", [(CLIP, FEATURE)], SplitSpec(), options)
    found = built[0].feature_set
    assert found.manifest.tracks.ok == 10
    assert json.loads((found.path / "manifest.json").read_text())["source"] == str(audio)


def test_absolute_paths_through_a_link_are_inside(apart: Apart, tmp_path: Path) -> None:
    table, audio = apart
    link = tmp_path / "link"
    link.symlink_to(audio)
    rows = table.read_text().splitlines()
    table.write_text("\n".join([rows[0], *(f"{link}/{row}" for row in rows[1:])]))
    catalog = read_catalog(table, label="genre", audio_root=link)
    assert catalog.unlisted == ()
    assert not any(track.path.startswith("/") for track in catalog.tracks)


def test_a_root_without_the_audio_is_said_to_be_one(apart: Apart, tmp_path: Path) -> None:
    table, _ = apart
    (tmp_path / "empty").mkdir()
    catalog = read_catalog(table, label="genre", audio_root=tmp_path / "empty")
    options = BuildOptions(decode=decode_here)
    with pytest.raises(BuildError, match=rf"looked up below {tmp_path}/empty.*--audio-root"):
        build_sets(catalog, tmp_path / "out", [(CLIP, FEATURE)], SplitSpec(), options)


def test_keys_in_the_address_of_a_root_are_refused_by_a_study(apart: Apart) -> None:
    table, _ = apart
    root = "s3://KEY:SECRET@bucket/music"
    found = CliRunner().invoke(
        run,
        [str(SPACE), "--data", str(table), "--audio-root", root, "--label", "genre", "--dry-run"],
    )
    assert found.exit_code == 2
    assert "come from the environment" in found.output
    assert "SECRET" not in found.output


def test_a_space_file_is_written_for_both(
    apart: Apart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, audio = apart
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(init, [str(table)])
    assert refused.exit_code == 2
    assert "--label genre" in refused.output
    words = [str(table), "--label", "genre", "--audio-root", audio.name, "-o", "mine.yaml"]
    done = CliRunner().invoke(init, words)
    assert done.exit_code == 0, done.output
    data = yaml.safe_load(Path("mine.yaml").read_text())["data"]
    assert (data["root"], data["label"]) == (str(table), "genre")
    assert data["audio_root"] == str(audio)
    assert CliRunner().invoke(run, ["mine.yaml", "--dry-run"]).exit_code == 0
