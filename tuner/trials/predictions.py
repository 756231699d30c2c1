"""Use a trained trial: predict a split, export the model."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipelines.features.networks.selection import without_files
from tuner.training import metrics
from tuner.training.bundle import EMBEDDING, save_bundle
from tuner.training.checkpoint import DAMAGE, best_weights
from tuner.training.exported import member_folder, save_fusion
from tuner.training.feed import Alone
from tuner.trials.assembly import TrialSpec, checkpoint_folder, trial_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipelines.storage import Folder


@dataclass(frozen=True)
class Predictions:
    """Predictions of a trained trial, or of a fusion of several, on one split.

    Attributes:
        track_ids: Tracks of the split, ``t``.
        truth: Class of each track ``[t]``.
        probabilities: Soft vote ``[t, k]``, the mean of the clips' probabilities.
        hard: Hard vote ``[t, k]``, the share of clips that each class wins.
        clip_confusion: Counts of clips ``[k, k]``, truth in rows; None for a fusion, whose members
            need not have the same clips.
        metrics: Metrics of the split; see `tuner.training.metrics.evaluation`.
    """

    track_ids: tuple[str, ...]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    hard: NDArray[np.float64]
    clip_confusion: NDArray[np.int64] | None
    metrics: dict[str, float]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Classes that win the soft vote ``[t]``."""
        winners: NDArray[np.int64] = self.probabilities.argmax(1)
        return winners

    def write(self, study: Folder, trial_id: str, split: str) -> None:
        """Keep the predictions of a trial in its folder.

        Raises:
            StorageFullError: No room left; names the path.
        """
        assert self.clip_confusion is not None
        about = json.dumps({"track_ids": self.track_ids, "metrics": self.metrics})
        archive = io.BytesIO()
        np.savez_compressed(
            archive, about=np.array(about), truth=self.truth, probabilities=self.probabilities,
            hard=self.hard, clip_confusion=self.clip_confusion,
        )  # fmt: skip
        trial_folder(study, trial_id).write_bytes(_file(split), archive.getvalue())

    @classmethod
    def read(cls, study: Folder, trial_id: str, split: str) -> Predictions | None:
        """Read kept predictions; None if there are none or they are damaged."""
        try:
            content = trial_folder(study, trial_id).read_bytes(_file(split))
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
                arrays = ("truth", "probabilities", "hard", "clip_confusion")
                found = cls(
                    track_ids=tuple(about["track_ids"]), metrics=about["metrics"],
                    **{name: stored[name] for name in arrays},
                )  # fmt: skip
            return found if found._is_whole() else None
        except (*DAMAGE, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def _is_whole(self) -> bool:
        """Return True if there are finite probabilities for each track."""
        t, counts = len(self.track_ids), self.clip_confusion
        return bool(
            counts is not None
            and self.truth.shape == (t,)
            and self.probabilities.shape == self.hard.shape == (t, len(counts))
            and np.isfinite(self.probabilities).all()
        )


def _file(split: str) -> str:
    return f"answers/{split}.npz"  # the name on disk since the first version


def predict_split(study: Folder, spec: TrialSpec, split: str) -> Predictions:
    """Predict a split from stored feature rows, with the weights of the best epoch.

    Args:
        study: Folder of the study.
        spec: The trial.
        split: The split.

    Raises:
        CheckpointError: The trial has no intact checkpoint.
    """
    clips = _predict_clips(study, spec, split)
    k = clips.probabilities.shape[1]
    sums = metrics.EvalSums.zeros(len(clips.truth), k, torch.device("cpu"))
    sums.add(clips.probabilities, clips.y, clips.track)
    return Predictions(
        track_ids=clips.track_ids,
        truth=clips.truth,
        probabilities=sums.soft_votes(),
        hard=sums.hard_votes(),
        clip_confusion=sums.clip_confusion.cpu().numpy(),
        metrics=metrics.evaluation(sums, clips.truth),
    )


@dataclass(frozen=True)
class _Clips:
    """Predictions ``[n, k]`` of a trial for the clips of a split, and the tracks of the clips."""

    probabilities: torch.Tensor
    y: torch.Tensor
    track: torch.Tensor
    track_ids: tuple[str, ...]
    truth: NDArray[np.int64]


def _predict_clips(study: Folder, spec: TrialSpec, split: str) -> _Clips:
    """Predict a split; with folds, each validation clip by the model that has not seen it."""
    if not spec.folds:
        return _predict_part(study, spec, split)
    parts = [_predict_part(study, spec, split, fold) for fold in spec.folds]
    before = np.cumsum([0, *(len(part.track_ids) for part in parts)])
    return _Clips(
        probabilities=torch.cat([part.probabilities for part in parts]),
        y=torch.cat([part.y for part in parts]),
        track=torch.cat([part.track + int(n) for part, n in zip(parts, before, strict=False)]),
        track_ids=tuple(name for part in parts for name in part.track_ids),
        truth=np.concatenate([part.truth for part in parts]),
    )


def _predict_part(study: Folder, spec: TrialSpec, split: str, fold: int | None = None) -> _Clips:
    parts = spec.assemble(Alone(torch.device("cpu")), from_weights=False, fold=fold)
    parts.classifier.load_state_dict(_best_weights(study, spec, fold))
    parts.classifier.eval()
    found = [
        (metrics.clip_probabilities(parts.classifier, one.x, parts.recipe.crops), one.y, one.track)
        for one in parts.feed.evaluation(split)
    ]
    probabilities, y, track = (torch.cat(one) for one in zip(*found, strict=True))
    rows = parts.arrays.splits[split]
    names = tuple(parts.arrays.track_ids[number] for number in rows.tracks)
    return _Clips(probabilities, y, track, names, parts.arrays.labels_of(split))


def export_bundle(study: Folder, spec: TrialSpec, target: Path, origin: dict[str, Any]) -> Path:
    """Export the best epoch of a trial as a folder that `tuner.predict` reads.

    Raises:
        CheckpointError: The trial has no intact checkpoint.
    """
    parts = spec.assemble(Alone(torch.device("cpu")), from_weights=False)
    weights = _best_weights(study, spec)
    bundle = replace(parts.bundle, origin=origin)
    if (embedding := bundle.embedding(with_weights=True)) is not None:
        # A file of the user's is not needed any more: its weights are in the bundle.
        by_name = without_files(bundle.feature.networks)
        feature = bundle.feature.model_copy(update={"network": by_name})
        bundle = replace(bundle, feature=feature)
        weights |= {EMBEDDING + name: value for name, value in embedding.state_dict().items()}
    return save_bundle(target, bundle, weights)


def export_fusion(
    study: Folder,
    specs: Sequence[TrialSpec],
    weights: Sequence[float],
    target: Path,
    origin: dict[str, Any],
) -> Path:
    """Export the best epochs of the members of a fusion in one folder, as `export_bundle` does.

    Raises:
        CheckpointError: A trial has no intact checkpoint.
    """
    for number, spec in enumerate(specs):
        of_member = {"study": origin["study"], "trial_id": spec.trial_id}
        export_bundle(study, spec, member_folder(target, number), of_member)
    return save_fusion(target, weights, origin)


def _best_weights(
    study: Folder, spec: TrialSpec, fold: int | None = None
) -> dict[str, torch.Tensor]:
    return best_weights(checkpoint_folder(trial_folder(study, spec.trial_id), fold))
