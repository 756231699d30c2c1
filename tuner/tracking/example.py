"""A real clip of the study's data, which the registered model shows as an example of its input."""

from __future__ import annotations

import io
import os

import soundfile

from pipelines.audio.reading import Window
from pipelines.audio.sandbox import Decoder
from pipelines.sources.files import files_at
from pipelines.storage import Folder
from pipelines.store import open_feature_set
from tuner.errors import decorating

MOST_SECONDS = 5.0  # of sound, so that the example stays a few hundred kilobytes


def example_clip(feature_set: str) -> bytes:
    """Return the first clip of the first test track as a FLAC file.

    Nothing, with a warning, if the audio is no longer there.

    Args:
        feature_set: Folder of the feature set that the model was trained on.
    """
    file = io.BytesIO()
    with decorating("the example of the model's input"):
        found = open_feature_set(Folder.at(feature_set))
        rate = found.manifest.feature.sample_rate
        seconds = min(found.manifest.clip.clip_seconds, MOST_SECONDS)
        tracks = [one for one in found.tracks().to_pylist() if one["split"]]
        track = min(tracks, key=lambda one: (one["split"] != "test", one["path"]))
        fd = files_at(found.manifest.source).open(track["path"])
        try:
            with Decoder() as decoder:
                window = Window(track["start_s"] or 0.0, track["end_s"], seconds)
                sound = decoder.decode(fd, track["path"], rate, window)
        finally:
            os.close(fd)
        soundfile.write(file, sound.samples, rate, "PCM_16", format="FLAC")
    return file.getvalue()
