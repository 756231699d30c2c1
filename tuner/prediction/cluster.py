"""Predict many files on the connected Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.sources.files import is_uri
from tuner.prediction.answer import Prediction, predict_file

if TYPE_CHECKING:
    from pipelines.audio.sandbox import Decoder
    from tuner.prediction.files import AudioFile
    from tuner.training.predictor import TrainedModel, VoteKind

# Large enough that starting a batch costs little, small enough that losing one costs little.
_MAX_FILES = 48
_MIN_BATCHES = 24


@dataclass(frozen=True)
class Job:
    """Everything that the batches share.

    Attributes:
        model: The model.
        vote: Method of combining the clips' predictions.
        timeline: True to return the clips as well.
    """

    model: TrainedModel
    vote: VoteKind
    timeline: bool


def predict_on_cluster(files: Sequence[AudioFile], job: Job) -> Iterator[Prediction]:
    """Predict files with Ray Data, which every node must reach by the same path or URI.

    Yields:
        Predictions in the order in which batches finish.

    Raises:
        UserError: A remote storage does not answer, or workers die again and again.
    """
    from pipelines.build.ray_pass import run_all

    size = max(1, min(_MAX_FILES, len(files) // _MIN_BATCHES))
    batches = [files[start : start + size] for start in range(0, len(files), size)]
    for _, found in run_all(_predict_batch, [list(map(_anywhere, one)) for one in batches], job):
        yield from found


def _anywhere(file: AudioFile) -> tuple[AudioFile, str]:
    """Return a file by an address that does not depend on the working folder, and its name."""
    if is_uri(file.root):
        return file, file.shown
    name = "root" if file.root else "path"
    place = str(Path(getattr(file, name)).absolute())
    return file._replace(**{name: place}), file.shown


def _predict_batch(files: Sequence[tuple[AudioFile, str]], job: Job) -> list[Prediction]:
    found = []
    for file, shown in files:
        one = predict_file(file, job.model, job.vote, _decoder())
        found.append(replace(one, path=shown, heard=one.heard if job.timeline else ()))
    return found


@cache
def _decoder() -> Decoder:
    """Return the decoder of this process, which serves many batches."""
    from pipelines.audio.sandbox import Decoder

    return Decoder()
