"""Let a trained model hear labelled tracks: its votes, and what its profile describes of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.audio.reading import Window
from pipelines.audio.sandbox import Decoder
from pipelines.errors import AudioRejected
from pipelines.facts import measure
from pipelines.plain_text import printable
from pipelines.sources.content import check_listed
from pipelines.sources.files import files_at
from pipelines.sources.tracks import shown
from tuner.training import metrics
from tuner.training.profile import track_vector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.sources.files import Files
    from pipelines.sources.tracks import Catalog, Track
    from tuner.training.predictor import TrainedModel


@dataclass(frozen=True)
class Heard:
    """One track as a model hears it.

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


def listen(
    model: TrainedModel, catalog: Catalog, progress: Callable[[int, int], None]
) -> Iterator[Heard | Unreadable]:
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
                yield _hear(model, decoder, files, track)
            except AudioRejected as error:
                yield Unreadable(shown(track), printable(f"{error.code}: {error.detail}"))
            except OSError as error:
                yield Unreadable(shown(track), printable(error.strerror or str(error)))
        progress(len(catalog.tracks), len(catalog.tracks))


def _hear(model: TrainedModel, decoder: Decoder, files: Files, track: Track) -> Heard:
    fd = files.open(track.path)
    try:
        check_listed(fd, track.columns)
        window = Window(track.start_s, track.end_s)
        decoded = {r: decoder.decode(fd, track.path, r, window) for r in model.sample_rates}
    finally:
        os.close(fd)
    sounds = {rate: one.samples for rate, one in decoded.items()}
    members, weights = model.members, model.weights
    features = [one.extracted(sounds).features for one in members]
    clips = [one.classify(x) for one, x in zip(members, features, strict=True)]
    rate = members[0].sample_rates[0]
    level_db, bandwidth_hz = measure(sounds[rate], rate)
    return Heard(
        label=printable(track.label),
        soft=metrics.weighted_mean([metrics.soft_votes(one) for one in clips], weights),
        hard=metrics.weighted_mean([metrics.hard_votes(one) for one in clips], weights),
        level_db=level_db,
        bandwidth_hz=bandwidth_hz,
        seconds=decoded[rate].seconds,
        pcm_digest=decoded[rate].pcm_digest,
        vectors=tuple(
            track_vector(x, one.bundle.feature) for one, x in zip(members, features, strict=True)
        ),
    )
