"""A trained model for Python: predictions for files and for samples."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipelines.audio.sandbox import Decoder
from pipelines.errors import AudioRejected, UserError
from tuner.errors import UsageError
from tuner.prediction import loading
from tuner.prediction.answer import predict_file, predict_open
from tuner.prediction.files import audio_files
from tuner.prediction.samples import opened_samples
from tuner.tracking.store import address_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from tuner.prediction.answer import Prediction
    from tuner.training.predictor import TrainedModel, VoteKind


class Model:
    """A trained model.

    Attributes:
        labels: Class names.
    """

    def __init__(self, trained: TrainedModel) -> None:
        self._trained = trained
        self.labels = trained.labels

    def __repr__(self) -> str:
        return f"Model of {len(self.labels)} classes: {', '.join(self.labels)}"

    def predict(
        self,
        audio: str | Path | ArrayLike,
        rate: int | None = None,
        vote: VoteKind = "soft",
    ) -> Prediction:
        """Predict the class of a track.

        Args:
            audio: A file, or samples: float, or integers of full scale; ``[n]`` or
                ``[n, channels]``, as soundfile reads them.
            rate: Sample rate of the samples, in Hz.
            vote: Average the clips' probabilities, or count the clips that each class wins.

        Returns:
            The prediction: ``label``, ``probabilities`` by class (most probable first), ``clips``.

        Raises:
            UserError: The audio cannot be read, or the rate is missing; says why.
        """
        if isinstance(audio, str | Path):
            if rate is not None:
                raise UsageError("a file has its own rate; leave rate out")
            with Decoder() as decoder:
                found = predict_file(Path(audio), self._trained, vote, decoder)
            if found.error:
                raise UserError(f"{found.path}: {found.error}")
            return found
        try:
            return self._of_samples(audio, rate, vote)
        except AudioRejected as error:
            raise UserError(f"samples: {error}") from error

    def _of_samples(self, samples: ArrayLike, rate: int | None, vote: VoteKind) -> Prediction:
        """Write samples to a file, which takes the same road as any other."""
        sound = np.asarray(samples)
        if sound.dtype.kind == "i":
            sound = sound / -float(np.iinfo(sound.dtype).min)
        if sound.dtype.kind != "f":
            raise UsageError(f"samples must be floats or signed integers, got {sound.dtype}")
        with opened_samples(sound, rate) as fd:
            return predict_open(fd, "samples", self._trained, vote)

    def predict_many(
        self, files: str | Path | Iterable[str | Path], vote: VoteKind = "soft"
    ) -> pd.DataFrame:
        """Predict many files; one that cannot be read has no label and an error.

        Args:
            files: Files and folders; a folder means the audio files below it.
            vote: As for ``predict``.

        Returns:
            A row for each file: ``path``, ``label``, ``clips``, ``error``, and the share of each
            class as ``p_<class>``.
        """
        given = [files] if isinstance(files, str | Path) else files
        with Decoder() as decoder:
            rows = [
                self._row(predict_file(path, self._trained, vote, decoder))
                for path in audio_files(map(str, given))
            ]
        columns = ["path", "label", "clips", "error", *(f"p_{label}" for label in self.labels)]
        return pd.DataFrame(rows, columns=columns)

    def _row(self, found: Prediction) -> dict[str, Any]:
        shares = {f"p_{label}": share for label, share in found.probabilities.items()}
        return {
            "path": found.path, "label": found.label, "clips": found.clips, "error": found.error,
            **shares,
        }  # fmt: skip


def load_model(
    reference: str | Path, storage: str | Path = "results", tracking_uri: str | None = None
) -> Model:
    """Load a model.

    Args:
        reference: ``models:/NAME@champion``, ``models:/NAME/3``, an MLflow run, or a folder that
            holds ``bundle.json``, such as ``model/`` in the folder of a study.
        storage: Folder of the studies, whose MLflow store knows the names.
        tracking_uri: MLflow; default: MLFLOW_TRACKING_URI, else the store in the storage.

    Raises:
        UserError: There is no such model, or it is damaged.
    """
    return Model(loading.load_model(str(reference), address_of(storage, tracking_uri)))
