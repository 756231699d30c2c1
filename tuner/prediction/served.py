"""The registered model as MLflow serves it: audio in, class names with probabilities out.

MLflow imports this module by its name, which stands in the registered model, and hands it the
folder of the model. No pickle and no code comes from there.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import LifoQueue
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from pipelines.audio.sandbox import Decoder
from pipelines.errors import AudioRejected, UserError
from pipelines.sources.files import files_at
from tuner.prediction.answer import Prediction, predict_open, refused
from tuner.prediction.answer import timeline as timeline_of
from tuner.prediction.files import AudioFile
from tuner.prediction.samples import opened_samples
from tuner.training.exported import load_exported
from tuner.training.predictor import VoteKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tuner.training.predictor import TrainedModel

ROOT_VARIABLE = "TUNER_SERVE_ROOT"
"""Environment variable with the folder or URI below which clients may name files."""

BUNDLE_FOLDER = "extra_files"
MAX_BYTES = 64 * 2**20  # of one file: a WAV of six minutes, an MP3 of an hour
MAX_SECONDS = 3600.0  # compressed silence is long for its size
SOURCES = ("audio", "path", "samples")

# Set by MLflow's server (mlflow.environment_variables); a test would see another name.
_IS_SERVED = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"


class ServedModel:
    """A model for the rows of a request, from any number of threads.

    Attributes:
        model: The model.
    """

    def __init__(self, model: TrainedModel) -> None:
        self.model = model
        # As many predictions at once as there are processors; each decoder starts when needed.
        self._decoders: LifoQueue[Decoder] = LifoQueue()
        for _ in range(os.cpu_count() or 1):
            self._decoders.put(Decoder())

    def predict(self, rows: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Answer each row of a table.

        Args:
            rows: A pandas table. Each row has one of ``audio``: the bytes of a file, or these in
                base64; ``path``: a path or URI; ``samples``: the samples of one channel, full
                scale at 1, with their ``sample_rate`` in Hz.
            params: ``vote``: soft or hard; ``timeline``: whether to list the clips.

        Returns:
            For each row ``label``, ``probabilities`` by class, ``clips`` and ``error``, which is
            None, or the reason for a missing label.
        """
        wanted = {"vote": "soft", "timeline": False, **(params or {})}
        return [self._answer(row, **wanted) for row in _records(rows)]

    def _answer(self, row: Mapping[str, Any], vote: VoteKind, timeline: bool) -> dict[str, Any]:
        found = self._predicted(row, vote)
        answer = {
            "label": found.label,
            "probabilities": found.probabilities,
            "clips": found.clips,
            "error": found.error,
        }
        return answer | (
            {"timeline": [*timeline_of(found, self.model.labels)]} if timeline else {}
        )

    def _predicted(self, row: Mapping[str, Any], vote: VoteKind) -> Prediction:
        decoder = self._decoders.get()
        try:
            if vote not in get_args(VoteKind):
                raise _bad(f"vote must be soft or hard, got {vote!r}")
            with _opened(row) as fd:
                return predict_open(fd, "audio", self.model, vote, decoder, MAX_SECONDS)
        except (UserError, OSError) as error:
            return refused("audio", vote, error)
        finally:
            self._decoders.put(decoder)


def _load_pyfunc(folder: str) -> ServedModel:
    """Load the model in a folder; MLflow calls this function."""
    return ServedModel(load_exported(Path(folder) / BUNDLE_FOLDER))


def _records(rows: Any) -> list[dict[str, Any]]:
    """Return the rows of a table; never none, so that every request gets an answer."""
    if "samples" in rows and rows["samples"].dtype.kind in "iuf" and rows["samples"].notna().any():
        # One flat list: MLflow made a row of each sample.
        return [{**rows.iloc[0], "samples": rows["samples"].to_numpy()}]
    # MLflow drops columns that it does not know, and without any column there are no rows.
    return rows.to_dict("records") or [{}]


def _bad(detail: str) -> AudioRejected:
    return AudioRejected("E_INPUT", detail)


@contextmanager
def _opened(row: Mapping[str, Any]) -> Iterator[int]:
    """Open the audio of a row as a file.

    Raises:
        AudioRejected: The row names no audio, or audio that may not or cannot be read.
    """
    given = [name for name in SOURCES if not _is_missing(row.get(name))]
    if len(given) != 1:
        raise _bad(
            "give one of audio (the file's bytes in base64), path, or samples with sample_rate; "
            f"got {' and '.join(given) or 'none of them'}"
        )
    value = row[given[0]]
    if given == ["path"]:
        file = _named(value)
        # Before it is fetched, because remote files are fetched into memory.
        if file.root and (stamp := files_at(file.root).stamp(file.path)):
            _check_size(stamp[0])
        with file.opened() as fd:
            _check_size(os.fstat(fd).st_size)
            yield fd
        return
    if given == ["samples"]:
        with opened_samples(_samples(value), row.get("sample_rate")) as fd:
            yield fd
        return
    content = _bytes(value)
    with os.fdopen(os.memfd_create("audio"), "wb", buffering=0) as stream:
        stream.write(content)
        yield stream.fileno()


def _is_missing(value: Any) -> bool:
    """Return True for a cell without a value, which pandas fills with NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _check_size(num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise AudioRejected("E_TOO_LONG", f"{num_bytes} bytes; at most {MAX_BYTES} are read")


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        _check_size(len(value))
        return bytes(value)
    if not isinstance(value, str):
        raise _bad(f"audio must be the file's bytes in base64, got {type(value).__name__}")
    _check_size(len(value) * 3 // 4)
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except ValueError as error:
        raise _bad(f"audio is not base64: {error}") from error


def _samples(value: Any) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # decoding rejects infinity with a reason
            samples = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise _bad(f"samples must be numbers of one channel: {error}") from error
    if samples.ndim != 1:
        raise _bad(f"samples must be a list, one channel; got the shape {list(samples.shape)}")
    return samples


def _named(address: Any) -> AudioFile:
    """Return the file that a client names, if clients may read it."""
    if not isinstance(address, str) or not address:
        raise _bad(f"path must be one path or URI, got {type(address).__name__}")
    root = os.environ.get(ROOT_VARIABLE, "")
    if root:
        return AudioFile(address.removeprefix(root.rstrip("/") + "/"), root)
    if os.environ.get(_IS_SERVED) == "true":
        raise _bad(
            "this server reads no paths; send the file as audio, or start the server with "
            f"{ROOT_VARIABLE}=FOLDER to allow what lies below that folder or URI"
        )
    return AudioFile.at(address)
