"""Predict labelled tracks and measure what the model's profile describes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.audio.reading import Window
from pipelines.audio.sandbox import Decoder
from pipelines.errors import AudioRejected
from pipelines.facts import measure
from pipelines.plain_text import escaped, printable
from pipelines.sources.content import check_listed
from pipelines.sources.files import files_at
from pipelines.sources.tracks import shown
from tuner.prediction.answer import predict_sections
from tuner.training.predictor import count_votes
from tuner.training.profile import track_vector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.audio import Decoded
    from pipelines.sources.files import Files
    from pipelines.sources.tracks import Catalog, Track
    from tuner.training.predictor import TrainedModel


@dataclass(frozen=True)
class MeasuredTrack:
    """A predicted track and what was measured of it, in its first ten minutes.

    Attributes:
        label: Its class in the data, which the model need not know.
        soft: Soft vote ``[k]``.
        hard: Hard vote ``[k]``.
        level_db: Root mean square, in dB from full scale.
        bandwidth_hz: Frequency up to which it holds sound; None if its middle is silent.
        seconds: Length.
        pcm_digest: Digest of its samples.
        vectors: For each member of the model the numbers ``[d]`` of `Profile`.
    """

    label: str
    soft: NDArray[np.float64]
    hard: NDArray[np.float64]
    level_db: float
    bandwidth_hz: float | None
    seconds: float
    pcm_digest: str
    vectors: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True)
class Unreadable:
    """A track that was not judged, and why."""

    path: str
    reason: str


def predict_and_measure(
    model: TrainedModel, catalog: Catalog, progress: Callable[[int, int], None]
) -> Iterator[MeasuredTrack | Unreadable]:
    """Decode and predict the tracks of a catalog, one after the other.

    Files are decoded in a child process, as for building.

    Args:
        model: The model.
        catalog: The tracks; those without a label or with a fault of the listing are unreadable.
        progress: Called with the number of tracks done and their total.

    Raises:
        UserError: A remote storage does not answer, or the child process does not start.
    """
    files = files_at(catalog.root)
    with Decoder() as decoder:
        for number, track in enumerate(catalog.tracks):
            progress(number, len(catalog.tracks))
            try:
                if fault := catalog.rejected.get(track.track_id):
                    raise AudioRejected(*fault)
                yield _measured(model, decoder, files, track)
            except AudioRejected as error:
                yield Unreadable(shown(track), printable(f"{error.code}: {error.detail}"))
            except OSError as error:
                yield Unreadable(shown(track), printable(error.strerror or str(error)))
        progress(len(catalog.tracks), len(catalog.tracks))


def _measured(model: TrainedModel, decoder: Decoder, files: Files, track: Track) -> MeasuredTrack:
    """Predict a track, and measure its first section, as the profile describes training tracks."""
    sections: dict[int, Decoded] = {}
    features: dict[int, NDArray[np.float16]] = {}

    def read(rate: int, window: Window) -> Decoded:
        part = Window(track.start_s + window.start_s, track.end_s)
        section = decoder.decode(fd, track.path, rate, part)
        sections.setdefault(rate, section)
        return section

    fd = files.open(track.path)
    try:
        check_listed(fd, track.columns)
        clips = predict_sections(read, track.path, model, on_features=features.setdefault).heard
    finally:
        os.close(fd)
    rate = model.members[0].sample_rates[0]
    level_db, bandwidth_hz = measure(sections[rate].samples, rate)
    return MeasuredTrack(
        label=escaped(track.label),
        soft=count_votes(clips, model.weights, "soft").shares,
        hard=count_votes(clips, model.weights, "hard").shares,
        level_db=level_db,
        bandwidth_hz=bandwidth_hz,
        seconds=sections[rate].seconds,
        pcm_digest=sections[rate].pcm_digest,
        vectors=tuple(
            track_vector(features[number], one.bundle.feature)
            for number, one in enumerate(model.members)
        ),
    )
