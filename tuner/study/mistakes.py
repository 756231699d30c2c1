"""The mistakes of the tested model: tracks of the most confused classes, as sound and picture."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soundfile

from pipelines.audio.reading import Window
from pipelines.audio.sandbox import Decoder
from pipelines.errors import UserError
from pipelines.features import FeatureSpec
from pipelines.features.extract import cut, extract
from pipelines.settings import ClipSpec
from pipelines.sources.files import files_at
from tuner.ledger.explanation import Mistake
from tuner.report.figures import spectrogram
from tuner.training.exported import load_exported
from tuner.training.predictor import FusedPredictor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipelines.sources.tracks import Catalog, Track
    from pipelines.storage import Folder
    from tuner.training.predictor import Predictor, TrainedModel
    from tuner.trials.predictions import Predictions

MAX_PAIRS, MAX_OF_A_PAIR = 4, 2
MAX_SECONDS = 6.0  # of sound: enough to hear it, and about 30 kB
MP3_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
COMPRESSION = 0.8  # libsndfile's measure; about 40 kbit/s of mono at 22,050 Hz
SHOWN_DB = 80.0  # below the loudest point of a spectrogram


def worst_tracks(found: Predictions) -> list[int]:
    """Return wrong tracks by number: of the most confused pairs of classes, the surest first."""
    predicted = found.predicted
    wrong = np.flatnonzero(predicted != found.truth)
    sure = found.probabilities[wrong, predicted[wrong]]
    pairs: dict[tuple[int, int], list[int]] = {}
    for number in wrong[np.argsort(-sure, kind="stable")]:
        pair = (int(found.truth[number]), int(predicted[number]))
        pairs.setdefault(pair, []).append(int(number))
    most = sorted(pairs.values(), key=len, reverse=True)[:MAX_PAIRS]
    return [number for numbers in most for number in numbers[:MAX_OF_A_PAIR]]


class Listening(NamedTuple):
    """What is needed to listen to tracks.

    Attributes:
        catalog: The data set.
        model: The tested model, as exported.
        folder: Folder of the study, which gets the files.
    """

    catalog: Catalog
    model: TrainedModel
    folder: Folder

    @classmethod
    def to(cls, catalog: Catalog, folder: Folder) -> Listening:
        """Load the exported model of a study."""
        return cls(catalog, load_exported(folder.local("model")), folder)

    @property
    def judge(self) -> Predictor:
        """The model that chooses clips: of a fusion, the member with the largest weight."""
        if isinstance(self.model, FusedPredictor):
            return self.model.members[int(np.argmax(self.model.weights))]
        return self.model


def listen(found: Predictions, labels: Sequence[str], listening: Listening) -> list[Mistake]:
    """Cut the clip of each of the worst tracks that misled the model most; write its files.

    A track whose file is gone or has changed is listed without a sound and says why.
    """
    tracks = {track.track_id: track for track in listening.catalog.tracks}
    mistakes: list[Mistake] = []
    with Decoder() as decoder:
        for place, number in enumerate(worst_tracks(found)):
            truth, predicted = int(found.truth[number]), int(found.predicted[number])
            track = tracks.get(found.track_ids[number])
            mistake = Mistake(
                path=track.path if track else found.track_ids[number],
                truth=labels[truth],
                predicted=labels[predicted],
                probability=float(found.probabilities[number, predicted]),
                true_probability=float(found.probabilities[number, truth]),
            )
            if track is None:
                mistakes.append(mistake._replace(problem="the data set does not list it any more"))
                continue
            try:
                clip = _worst_clip(track, predicted, listening, decoder)
                mistakes.append(_written(mistake, clip, f"mistakes/{place}", listening.folder))
            except (UserError, OSError, soundfile.SoundFileError) as error:
                mistakes.append(mistake._replace(problem=str(error)))
    return mistakes


class _Clip(NamedTuple):
    samples: NDArray[np.float32]  # [T]
    rate_hz: int
    start_seconds: float


def _worst_clip(track: Track, predicted: int, listening: Listening, decoder: Decoder) -> _Clip:
    """Return the clip to which the model gives the wrong class with the highest probability."""
    judge = listening.judge
    spec, rate = judge.bundle.clip, judge.bundle.feature.sample_rate
    heard_hz = next((one for one in MP3_RATES_HZ if one >= rate), MP3_RATES_HZ[-1])
    files = files_at(listening.catalog.root)
    fd = files.open(track.path)
    try:
        window = Window(track.start_s, track.end_s)
        sounds = {
            hz: decoder.decode(fd, track.path, hz, window).samples for hz in {rate, heard_hz}
        }
    finally:
        os.close(fd)
    probabilities = judge.clip_probabilities({rate: sounds[rate]})[:, predicted]
    starts = cut(sounds[rate], rate, spec).start_s
    # Whole-track features have one row, so their clips cannot be told apart.
    start = float(starts[int(probabilities.argmax())]) if len(probabilities) > 1 else 0.0
    first = round(start * heard_hz)
    length = round(min(spec.clip_seconds, MAX_SECONDS) * heard_hz)
    return _Clip(sounds[heard_hz][first : first + length], heard_hz, track.start_s + start)


def _written(mistake: Mistake, clip: _Clip, name: str, folder: Folder) -> Mistake:
    """Write the sound and the spectrogram of a clip."""
    sound = io.BytesIO()
    peak = float(np.abs(clip.samples).max())
    # Quiet clips would not be heard on a telephone.
    louder = clip.samples * np.float32(0.9 / peak) if peak else clip.samples
    soundfile.write(
        sound, louder, clip.rate_hz, format="MP3", subtype="MPEG_LAYER_III",
        compression_level=COMPRESSION, bitrate_mode="VARIABLE",
    )  # fmt: skip
    folder.write_bytes(f"{name}.mp3", sound.getvalue())
    folder.write_bytes(f"{name}.png", spectrogram(_levels(clip), SHOWN_DB))
    return mistake._replace(
        start_seconds=clip.start_seconds,
        seconds=len(clip.samples) / clip.rate_hz,
        highest_hz=clip.rate_hz / 2,
        sound=f"{name}.mp3",
        picture=f"{name}.png",
    )


def _levels(clip: _Clip) -> NDArray[np.float32]:
    """Return the log-mel spectrogram ``[f, m]`` of a clip, in dB."""
    seconds = len(clip.samples) / clip.rate_hz
    feature = FeatureSpec(
        kind="logmel", sample_rate=clip.rate_hz, n_fft=2048, hop_length=clip.rate_hz // 50,
        n_mels=72,
    )  # fmt: skip
    spec = ClipSpec(clip_seconds=seconds, clips_per_track=1)
    levels: NDArray[np.float32] = extract(clip.samples, spec, feature).features[0].astype("f4")
    return levels
