"""The mistakes of a model, cut from real files."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile

from pipelines.features import FeatureSpec
from pipelines.settings import ClipSpec
from pipelines.sources.catalog import read_catalog
from pipelines.storage import Folder
from tuner.study.mistakes import Listening, listen, worst_tracks
from tuner.trials.predictions import Predictions

LABELS = ["a", "b", "c"]
RATE = 16000


def predictions(names: list[str], truth: list[int], probabilities: list[list[float]]):
    votes = np.array(probabilities)
    return Predictions(tuple(names), np.array(truth), votes, votes, None, {})


def test_the_most_confused_pair_comes_first_and_its_surest_tracks() -> None:
    found = predictions(
        list("uvwxyz"),
        [0, 0, 0, 0, 1, 2],
        [[1, 0, 0], [0.4, 0.6, 0], [0.1, 0.9, 0], [0.3, 0.7, 0], [0, 0.1, 0.9], [0, 0, 1]],
    )
    # a taken for b three times, of which two are kept; then b taken for c
    assert worst_tracks(found) == [2, 3, 4]


@dataclass
class LoudIsB:
    """A model that hears class b in a clip by its level."""

    bundle: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(
            clip=ClipSpec(clip_seconds=1.0, hop_seconds=1.0),
            feature=FeatureSpec(sample_rate=RATE),
        )
    )

    def clip_probabilities(self, sounds):
        clips = sounds[RATE][: 4 * RATE].reshape(4, RATE)
        level = np.abs(clips).max(1)
        return np.stack([1 - level, level, 0 * level], 1)


def test_the_clip_that_misled_most_is_heard_and_a_file_that_is_gone_is_a_line(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    tone = np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)
    louder = np.repeat([0.1, 0.2, 0.8, 0.3], RATE) * tone
    for name in ("a/one.wav", "a/two.wav", "b/three.wav", "c/four.wav"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(data / name, louder, RATE)
    catalog = read_catalog(data)
    ids = {track.path: track.track_id for track in catalog.tracks}
    (data / "a/two.wav").unlink()
    names = [ids["a/one.wav"], ids["a/two.wav"], "unknown"]
    found = predictions(names, [0, 0, 2], [[0.2, 0.8, 0], [0.3, 0.7, 0], [0.9, 0, 0.1]])
    folder = Folder.at(tmp_path / "study")
    model: Any = LoudIsB()
    heard, gone, unknown = listen(found, LABELS, Listening(catalog, model, folder))

    assert (heard.path, heard.truth, heard.predicted) == ("a/one.wav", "a", "b")
    assert (heard.start_seconds, heard.seconds, heard.problem) == (2.0, 1.0, "")
    samples, rate = soundfile.read(io.BytesIO(folder.read_bytes(heard.sound)))
    assert rate == RATE
    assert 1.0 <= len(samples) / rate < 1.2  # MP3 pads to whole frames
    spectrum = np.abs(np.fft.rfft(samples))
    assert abs(spectrum.argmax() * rate / len(samples) - 440) < 2
    assert folder.read_bytes(heard.picture).startswith(b"\x89PNG")
    assert len(folder.read_bytes(heard.sound)) < 20_000

    assert gone.sound == ""
    assert "no such file" in gone.problem
    assert "does not list it" in unknown.problem
