"""Predictions for audio: decode it in sections, classify their clips, and let the clips vote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import AudioRejected
from pipelines.plain_text import printable
from tuner.prediction.files import AudioFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pipelines.audio import Decoded
    from pipelines.audio.reading import Window
    from pipelines.audio.sandbox import Decoder
    from tuner.training.predictor import Clips, TrainedModel, VoteKind

# Verdicts on a section that cost no other section of the same file.
_SOUNDLESS = frozenset({"E_SILENT", "E_DC"})


@dataclass(frozen=True)
class Prediction:
    """The prediction for one track.

    Attributes:
        path: Address of the file as it was given, without secrets and control characters.
        label: The class with the most votes; None if the audio could not be read.
        probabilities: Share of each class, most probable first; empty without a label.
        clips: Number of clips that voted.
        vote: Method of combining the clips' predictions.
        error: Reason for a missing label.
        heard: The clips of each member of the model; empty without a label.
    """

    path: str
    label: str | None
    probabilities: dict[str, float]
    clips: int
    vote: VoteKind
    error: str | None = None
    heard: tuple[Clips, ...] = field(default=(), compare=False, repr=False)


def refused(path: str, vote: VoteKind, error: Exception) -> Prediction:
    """Return the prediction for audio that cannot be read."""
    return Prediction(path, None, {}, 0, vote, printable(error))


def predict_file(
    path: Path | AudioFile,
    model: TrainedModel,
    vote: VoteKind = "soft",
    decoder: Decoder | None = None,
) -> Prediction:
    """Decode a file and let the model vote, with the functions used in training.

    A file of up to ten minutes is one section, as in a feature set. A longer one is cut into
    sections of ten minutes, each treated as a track, whose clips vote together; so memory does not
    grow with the file. If the file cannot be read, the prediction has no label and says why.

    Args:
        path: The audio file.
        model: The model.
        vote: Method of combining the clips' predictions.
        decoder: A separate process that decodes, so that a file that crashes it costs only its
            own prediction; without one, this process decodes.

    Raises:
        UserError: A remote storage does not answer.
    """
    file = path if isinstance(path, AudioFile) else AudioFile(str(path))
    try:
        with file.opened() as fd:
            return predict_open(fd, file.shown, model, vote, decoder)
    except (AudioRejected, OSError) as error:
        return refused(file.shown, vote, error)


def predict_open(
    fd: int,
    shown: str,
    model: TrainedModel,
    vote: VoteKind = "soft",
    decoder: Decoder | None = None,
    longest_s: float = np.inf,
) -> Prediction:
    """Predict an open file; see ``predict_file``.

    Args:
        fd: Regular or anonymous file, open for reading; it stays open.
        shown: Its name in the prediction.
        model: The model.
        vote: Method of combining the clips' predictions.
        decoder: As for ``predict_file``.
        longest_s: Length that is accepted, in seconds.

    Raises:
        AudioRejected, OSError: The file cannot be read.
    """
    from pipelines.audio import decode_fd

    read = partial(decoder.decode if decoder else decode_fd, fd, shown)
    return predict_sections(read, shown, model, vote, longest_s)


def predict_sections(
    read: Callable[[int, Window], Decoded],
    shown: str,
    model: TrainedModel,
    vote: VoteKind = "soft",
    longest_s: float = np.inf,
    on_features: Callable[[int, NDArray[np.float16]], object] = lambda *_: None,
) -> Prediction:
    """Predict a track, section by section; see ``predict_open``.

    Args:
        read: Returns a window of the track at a sample rate in Hz.
        shown: As for ``predict_open``.
        model: The model.
        vote: As for ``predict_open``.
        longest_s: As for ``predict_open``.
        on_features: Hears the number of a member and the features of each section.
    """
    from tuner.training.predictor import count_votes, joined

    parts: list[list[Clips]] = [[] for _ in model.members]
    for rate in model.sample_rates:
        for start_s, samples in _sections(read, rate, longest_s):
            for number, member in enumerate(model.members):
                if rate in member.sample_rates:
                    features = partial(on_features, number)
                    parts[number].append(member.clips({rate: samples}, start_s, features))
    heard = tuple(map(joined, parts))
    votes = count_votes(heard, model.weights, vote)
    # Ties go to the class that is more probable on average, then to the first one.
    ranked = np.lexsort((-votes.mean, -votes.shares))
    shares = {model.labels[i]: float(votes.shares[i]) for i in ranked}
    return Prediction(shown, next(iter(shares)), shares, votes.num_clips, vote, heard=heard)


def _sections(
    read: Callable[[int, Window], Decoded], rate: int, longest_s: float
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Yield the start in seconds and the samples of each section of a file that has sound.

    Raises:
        AudioRejected: The file cannot be read, has no sound at all, or is too long.
    """
    from pipelines.audio.reading import MAX_SECONDS, Window

    start_s, soundless, has_sound = 0.0, None, False
    while True:
        section = None
        try:
            section = read(rate, Window(start_s))
        except AudioRejected as error:
            if start_s and error.code == "E_TOO_SHORT":  # the file ends here
                break
            if error.code not in _SOUNDLESS:
                raise
            soundless = soundless or error
        if start_s >= longest_s:
            raise AudioRejected("E_TOO_LONG", f"longer than the {longest_s:g} s that are accepted")
        if section is None:
            start_s += MAX_SECONDS
            continue
        has_sound = True
        yield start_s, section.samples
        if "W_LONG" not in section.flags:
            break
        start_s += section.seconds
    if soundless and not has_sound:
        raise soundless


def timeline(prediction: Prediction, labels: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield the clips of a track in time: start and end in seconds, label, probabilities.

    The members of a fusion cut clips of their own, so its clips have a ``member``, from 0.
    """
    clips = [
        (float(one.start_s[i]), number, float(one.end_s[i]), one.probabilities[i])
        for number, one in enumerate(prediction.heard)
        for i in range(len(one.start_s))
    ]
    for start_s, number, end_s, shares in sorted(clips, key=lambda clip: clip[:2]):
        ranked = np.argsort(-shares, kind="stable")
        yield {
            "start_s": start_s,
            "end_s": end_s,
            **({"member": number} if len(prediction.heard) > 1 else {}),
            "label": labels[ranked[0]],
            "probabilities": {labels[i]: float(shares[i]) for i in ranked},
        }
