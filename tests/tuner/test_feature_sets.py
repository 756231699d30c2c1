"""A study's audio: its address without secrets, checks before the start, and the build."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner

from pipelines.build.progress import BuildProgress
from pipelines.errors import SplitError
from pipelines.features import FeatureSpec
from pipelines.plain_text import printable
from pipelines.settings import ClipSpec, SplitSpec
from pipelines.sources.catalog import read_catalog
from pipelines.storage import Folder
from tests.conftest import write_tones
from tuner.config import loads
from tuner.ledger.journal import Ledger, StudyPaths
from tuner.run import main
from tuner.study.begin import begin
from tuner.study.features import (
    build_all,
    check_source,
    data_source,
    describe,
)

PLAIN = "name: x\nmodel: {name: cnn}\n"
SECRETS = ("AKIAKEY", "s3cr3t", "t0ken")
URI = "s3://AKIAKEY:s3cr3t@bucket/my%20music?region=eu-1&session_token=t0ken"
SHOWN = "s3://bucket/my%20music?region=eu-1"


@pytest.mark.parametrize(
    ("root", "source"),
    [
        ("demo", Path("results/demo-data")),
        ("my-music", Path("my-music")),
        ("~/my music", Path.home() / "my music"),
        ("s3://bucket/music", "s3://bucket/music"),
        (URI, URI),
        ("file:///srv/music", "file:///srv/music"),
        ("C://odd", "C://odd"),  # what a scheme is, pyarrow decides
    ],
)
def test_a_source_is_a_path_or_a_uri_as_given(root: str, source: str | Path) -> None:
    assert data_source(root, Folder.at("results")) == source


def test_pipeline_settings_follow_the_blocks() -> None:
    text = (
        "data: {clip_seconds: 2, clips_per_track: 3, short: repeat, group: track, seed: 5,"
        " split: clip}\nfeatures: {kind: mfcc, n_mels: 40, n_mfcc: 13}"
    )
    experiment = loads(PLAIN + text).template
    assert (*experiment.feature_set_key, experiment.data.split_spec) == (
        ClipSpec(clip_seconds=2.0, clips_per_track=3, short="repeat"),
        FeatureSpec(kind="mfcc", n_mels=40, n_mfcc=13),
        SplitSpec(group="track", unit="clip", seed=5),
    )


# --- secrets --------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "option"])
def test_nothing_that_a_study_writes_holds_the_secret_of_a_uri(place: str, tmp_path: Path) -> None:
    text = f"{PLAIN}data: {{root: '{URI}'}}\n" if place == "file" else PLAIN
    whole = loads(text, overrides=[] if place == "file" else [f"data.root='{URI}'"])
    space = whole.without_secrets()
    storage = Folder(tmp_path)
    here = StudyPaths(storage, "x", data_source(whole.template.data.root, storage))
    ledger = Ledger(here.folder)
    begin(space, here, ledger)
    ledger.close()

    assert here.data == URI, "the build needs it whole"
    assert ledger.last("study")["data"] == SHOWN  # type: ignore[index]
    assert space.template.data.root == SHOWN
    assert loads(space.source) == space
    written = b"".join(p.read_bytes() for p in here.folder.local().rglob("*") if p.is_file())
    shown = (
        written + json.dumps(space.template.model_dump()).encode() + repr((space, here)).encode()
    )
    assert SHOWN.encode() in shown
    assert not [secret for secret in SECRETS if secret.encode() in shown]


def test_a_space_without_a_secret_stays_as_it_is() -> None:
    for root in ("demo", "my music", "s3://bucket/music", "/srv/Müsik"):
        space = loads(f"{PLAIN}data: {{root: '{root}'}}  # mine\n")
        assert space.without_secrets() is space


def test_the_command_line_shows_no_secret(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(PLAIN)
    words = [str(tmp_path / "space.yaml"), "--data", URI]
    # The plan is only made for data that is there.
    for more, exit_code in (("--print-config", 0), ("--dry-run", 2)):
        found = CliRunner().invoke(main, [*words, more])
        assert found.exit_code == exit_code
        assert not [secret for secret in SECRETS if secret in found.output]


def test_words_of_a_command_are_shown_without_secrets() -> None:
    for word in (URI, f"--data={URI}", f"data.root={URI}", f"data={{root: '{URI}'}}"):
        shown = printable(word)
        assert "@bucket/my%20music" in shown
        assert not [secret for secret in SECRETS if secret in shown]
    assert printable("search_spaces/a b.yaml") == "search_spaces/a b.yaml"


# --- before a start -------------------------------------------------------------------------


def manifest(folder: Path, rows: list[str], header: str = "path,label,group") -> Path:
    write_tones(folder, per_class=4, seconds=0.1)
    (folder / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder / "manifest.csv"


def test_rows_that_the_listing_rejects_do_not_count_as_groups(tmp_path: Path) -> None:
    """Class `high` has three files, one of them listed with two classes: two groups are left."""
    rows = [f"{label} {n}.wav,{label},{label}{n}" for label in ("low", "mid") for n in range(3)]
    rows += [f"high {n}.wav,high,high{n}" for n in range(3)]
    check_source(loads(PLAIN), manifest(tmp_path, rows))
    with pytest.raises(SplitError, match="fewer than 3 groups: high"):
        check_source(loads(PLAIN), manifest(tmp_path, [*rows, "high 0.wav,low,other"]))


def test_a_split_by_clips_needs_no_groups(tmp_path: Path) -> None:
    rows = [f"{label} {n}.wav,{label},one" for label in ("low", "mid") for n in range(3)]
    source = manifest(tmp_path, rows)
    with pytest.raises(SplitError):
        check_source(loads(PLAIN), source)
    check_source(loads(f"{PLAIN}data: {{split: clip}}"), source)


def test_a_rule_on_the_path_is_tried_on_the_listing(tmp_path: Path) -> None:
    for label in ("low", "mid"):
        for number in range(4):
            path = tmp_path / label / f"album{number % 2}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, [0.1] * 800, 8000)
    check_source(loads(f"{PLAIN}data: {{group: track}}"), tmp_path)
    rule = f"{PLAIN}data: {{group: 'path:^([^/]+/[^/]+)/'}}"
    with pytest.raises(SplitError, match="fewer than 3 groups: low, mid"):
        check_source(loads(rule), tmp_path)
    with pytest.raises(SplitError, match="no column 'composer'"):
        check_source(loads(f"{PLAIN}data: {{group: composer}}"), tmp_path)


# --- building -------------------------------------------------------------------------------

SPACE = f"""{PLAIN}
data: {{clip_seconds: 0.5, clips_per_track: 2, split: {{train: 0.5, val: 0.25, test: 0.25}}}}
features:
  choice:
    - {{kind: logmel, sample_rate: 8000, n_fft: 512, hop_length: 256, n_mels: {{grid: [16, 32]}}}}
    - {{kind: mfcc, sample_rate: 8000, n_fft: 512, hop_length: 256, n_mels: 32, n_mfcc: 13}}
"""


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_all_sets_of_a_space_are_built_at_once_and_found_again(
    local_ray, tones: Path, tmp_path: Path
) -> None:
    progress: list[BuildProgress] = []
    built = build_all(loads(SPACE), read_catalog(tones), tmp_path, progress.append)
    shapes = {
        (feature.kind, result.feature_set.manifest.shape) for (_, feature), result in built.items()
    }
    # 1 + 4000 // 256 frames
    assert shapes == {("logmel", (16, 16)), ("logmel", (32, 16)), ("mfcc", (13, 16))}
    # 36 files of two clips in three sets
    assert progress[-1] == BuildProgress(files=36, listed=36, rejected=0, clips=216, resumed=0)
    assert all(one["leakage"]["passed"] for one in map(describe, built.values()))
    again = build_all(loads(SPACE), read_catalog(tones), tmp_path, progress.append)
    assert list(again) == list(built)
    assert all(result.reused for result in again.values())
