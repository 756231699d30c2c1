from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.build.__main__ import main
from pipelines.build.decode import decode_here
from pipelines.build.options import BuildResult
from pipelines.build.progress import BuildProgress
from pipelines.errors import SpecError, SplitError
from pipelines.features import FeatureSpec
from pipelines.settings import ClipSpec, SplitSpec
from pipelines.sources.catalog import read_catalog
from pipelines.storage import Folder
from pipelines.store import open_feature_set
from tests.pipelines.data_sets import build
from tuner.trials.cluster import Cluster

FEATURE = FeatureSpec(sample_rate=8000, n_fft=256, hop_length=128, n_mels=20)
CLIP = ClipSpec(clip_seconds=0.4, clips_per_track=3)
SPECS = (CLIP, FEATURE, SplitSpec())
OPTIONS = [
    "--sample-rate",
    "8000",
    "--n-fft",
    "256",
    "--hop-length",
    "128",
    "--n-mels",
    "20",
    "--clip-seconds",
    "0.4",
]


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
class TestBuild:
    def test_of_two_at_once_one_builds_and_one_waits(
        self, make_folder: Callable[..., Path], tmp_path: Path
    ) -> None:
        root = make_folder(per_class=6)
        (root / "hum" / "empty.wav").write_bytes(b"")
        catalog = read_catalog(root)
        results: list[BuildResult] = []
        seen: list[BuildProgress] = []

        def run() -> None:
            results.append(build(catalog, tmp_path / "out", *SPECS, progress=seen.append))

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=50)
        waited, built = sorted(results, key=lambda result: not result.reused)
        assert (waited.reused, built.reused) == (True, False)
        assert waited.feature_set == built.feature_set
        assert built.resumed_tracks == 0
        assert seen[0] == BuildProgress(files=0, listed=13, rejected=0, clips=0, resumed=0)
        assert seen[-1] == BuildProgress(files=13, listed=13, rejected=1, clips=36, resumed=0)
        built.feature_set.verify()
        assert built.feature_set.manifest.tracks.quarantined == 1
        assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == [
            built.feature_set.path.name
        ]
        again = build(catalog, tmp_path / "out", *SPECS)
        assert again.reused
        assert again.feature_set == built.feature_set


def test_what_cannot_work_is_told_before_any_audio_is_read(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    catalog = read_catalog(make_folder(per_class=2))
    with pytest.raises(SplitError, match="fewer than 3 groups"):
        build(catalog, tmp_path / "out", *SPECS)
    with pytest.raises(SpecError, match="clip_seconds"):
        build(catalog, tmp_path / "out", ClipSpec(clip_seconds=0.01), FEATURE, SplitSpec())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["gone"], "nothing at"),
        (["data", "--n-mels", "900"], "n_mels"),
        (["data", "--group", "album"], "no column 'album'"),
        (["data", "--train", "0.9"], "add up to 1"),
        (["data", "--leaks", "drop", "--unit", "clip"], "leaks cannot be dropped"),
        (["data", "--short", "loop"], "'pad' or 'repeat'"),
    ],
)
def test_usage_errors_end_with_2_and_one_line(
    make_folder: Callable[..., Path], tmp_path: Path, arguments: list[str], word: str
) -> None:
    make_folder(per_class=3)
    source, *rest = arguments
    command = [str(tmp_path / source), "--out", str(tmp_path / "out"), *OPTIONS, *rest]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert word in result.stderr
    assert result.stdout == ""


def test_help_is_quick_to_load() -> None:
    code = (
        "import sys, pipelines.build.__main__ as b\n"
        "try: b.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print({'torch', 'ray', 'mlflow', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines()[-1] == "set()"
    assert "--max-bad-share" in done.stdout


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_a_killed_command_goes_on_without_a_row_lost_or_doubled(
    make_folder: Callable[..., Path], tmp_path: Path, local_ray: Cluster
) -> None:
    """Killed on a cluster that runs already, continued on one of its own; the contract is kept."""
    root, out = make_folder(per_class=60), tmp_path / "out"
    (root / "hum" / "empty.wav").write_bytes(b"")
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    joined = {**alone, "RAY_ADDRESS": local_ray.address, "RAY_AUTH_MODE": "token"}
    command = [sys.executable, "-m", "pipelines.build", str(root), "--out", str(out), *OPTIONS]
    killed = subprocess.Popen(command, env=joined, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while len(list(out.glob(".staging/*/*.parquet"))) < 3:
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.wait(timeout=30)
    assert not list(out.glob("*/manifest.json"))

    # The first command of a user: a build that starts Ray, which makes its token.
    done = subprocess.run(
        [*command, "--json"],
        env={**alone, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=110,
        umask=0o022,
    )
    mode = stat.S_IMODE((tmp_path / ".ray/auth_token").stat().st_mode)
    assert (done.returncode, mode) == (3, 0o600), done.stderr
    assert ("E_EMPTY" in done.stderr, "Traceback" in done.stderr) == (True, False)
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result) == [
        *("path", "fingerprint", "labels", "tracks", "clips", "seconds", "resumed_tracks")
    ]
    assert Path(result["path"]).name == result["fingerprint"]
    assert result["tracks"] == {"listed": 121, "ok": 120, "flagged": 0, "quarantined": 1}
    assert 0 < result["resumed_tracks"] < 120
    assert sum(result["clips"].values()) == 120 * 10
    found = open_feature_set(Folder(Path(result["path"])))
    found.verify(digests=True)
    catalog = read_catalog(root)
    specs = (ClipSpec(clip_seconds=0.4), FEATURE, SplitSpec())
    fresh = build(catalog, tmp_path / "fresh", *specs, decode=decode_here).feature_set
    assert found.manifest.parts == fresh.manifest.parts

    # Without the bad file; all rows are there, so this decodes nothing.
    (root / "hum" / "empty.wav").unlink()
    clean = CliRunner().invoke(main, [str(root), "--out", str(out), *OPTIONS, "--json"])
    assert clean.exit_code == 0, clean.stderr
    result = json.loads(clean.stdout.splitlines()[-1])
    counts = {"listed": 120, "ok": 120, "flagged": 0, "quarantined": 0}
    assert (result["tracks"], result["resumed_tracks"]) == (counts, 120)
    # A folder that could have been a class and holds no audio is told, and the exit code says so.
    (root / "buzz").mkdir()
    told = CliRunner().invoke(main, [str(root), "--out", str(out), *OPTIONS])
    assert (told.exit_code, "the folder 'buzz' has no audio" in told.stdout) == (3, True)
