"""Effects of `data.leaks` on the first stage of a study, with feature sets built before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import soundfile

from pipelines.build.building import build_sets
from pipelines.build.decode import decode_here
from pipelines.build.options import BuildOptions
from pipelines.sources.catalog import read_catalog
from pipelines.storage import Folder
from tuner.config import Space, loads
from tuner.errors import ConfigError
from tuner.study.features import build_features, dropped_in_words

if TYPE_CHECKING:
    from tuner.study.context import Context

TEXT = """
name: x
model: {name: cnn}
data: {clip_seconds: 0.5, clips_per_track: 1, leaks: LEAKS, split: {column: side}}
features: {kind: logmel, sample_rate: 8000, n_fft: 256, hop_length: 128, n_mels: 16}
"""


def space(leaks: str) -> Space:
    return loads(TEXT.replace("LEAKS", leaks))


def torn_copies(folder: Path) -> Path:
    """Write two classes with given splits; one training track of `a` is in test too, softer."""
    lines = ["path,label,side"]
    for number, name in enumerate(f"{label}{take}" for label in "ab" for take in range(5)):
        rng = np.random.default_rng(number)
        sound = np.convolve(rng.standard_normal(8000), rng.standard_normal(16), "same")
        sound *= 0.5 / np.abs(sound).max()
        soundfile.write(folder / f"{name}.wav", sound, 8000)
        side = ("test", "val", "train", "train", "train")[int(name[1])]
        lines.append(f"{name}.wav,{name[0]},{side}")
        if name == "a0":
            soundfile.write(folder / "a9.wav", 0.5 * sound, 8000)
            lines.append("a9.wav,a,train")
    (folder / "manifest.csv").write_text("\n".join(lines))
    return folder / "manifest.csv"


def said(wanted: Space, source: Path, out: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the first stage's message to the user, and its record."""
    data = wanted.template.data
    keys = [wanted.template.feature_set_key]
    options = BuildOptions(decode=decode_here)
    build_sets(read_catalog(source), out, keys, data.split_spec, options)
    said: list[str] = []
    study = SimpleNamespace(
        space=wanted,
        paths=SimpleNamespace(data=source, features=Folder(out), name="x"),
        terminal=SimpleNamespace(files=lambda progress: None, say=said.append),
        ledger=SimpleNamespace(last=lambda kind: None, records=lambda *kinds: iter(())),
        feature_paths={},
        cluster=SimpleNamespace(num_cpus=1, num_nodes=2),  # no embedding is built for a baseline
    )
    build_features(cast("Context", study))
    return said[-1], study.features


def test_the_study_says_what_leaks_and_what_was_dropped(tmp_path: Path) -> None:
    source = torn_copies(tmp_path)
    line, recorded = said(space("report"), source, tmp_path / "out")
    assert line.startswith("features: 11 tracks; clips 7 train, 2 val, 2 test")
    assert line.endswith("LEAKY: 1 group, 1 pair of near-duplicates in more than one split")
    assert recorded[0]["leakage"]["dropped"] == 0

    line, recorded = said(space("drop"), source, tmp_path / "out")
    assert line.startswith("features: 11 tracks, 1 rejected; clips 6 train, 2 val, 2 test")
    assert line.endswith(
        "no leak between the splits; 1 training track dropped, with a copy or the group in "
        "validation or test"
    )
    assert (recorded[0]["leakage"]["dropped"], recorded[0]["leakage"]["passed"]) == (1, True)


def test_dropped_tracks_are_counted_by_their_split() -> None:
    assert dropped_in_words({"dropped": 5, "dropped_val": 2}) == (
        "3 training tracks dropped, with a copy or the group in validation or test; "
        "2 validation tracks dropped, with a copy or the group in test"
    )
    assert dropped_in_words({"dropped": 1, "dropped_val": 1}) == (
        "1 validation track dropped, with a copy or the group in test"
    )
    assert dropped_in_words({"passed": True}) == "", "a set of an earlier version"


def test_a_split_by_clips_cannot_drop_its_leaks() -> None:
    with pytest.raises(ConfigError, match="write leaks: report"):
        loads(TEXT.replace("LEAKS", "drop").replace("{column: side}", "clip"))
