"""Use a trained trial: predict a split, export the model."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipelines.features.networks.selection import without_files
from pipelines.storage import Folder
from pipelines.store import open_feature_set
from tuner.training import metrics
from tuner.training.bundle import EMBEDDING, save_bundle
from tuner.training.checkpoint import DAMAGE, best_weights
from tuner.training.exported import member_folder, save_fusion
from tuner.training.feed import Alone
from tuner.training.profile import Profile, profile_of
from tuner.trials.assembly import TrialSpec, checkpoint_folder, trial_folder
from tuner.trials.trial import catch_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


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
        clips: Logits of the clips, from which other temperatures follow; None for a fusion.
        metrics: Metrics of the split; see `tuner.training.metrics.evaluation`.
    """

    track_ids: tuple[str, ...]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    hard: NDArray[np.float64]
    clip_confusion: NDArray[np.int64] | None
    metrics: dict[str, float]
    clips: Clips | None = None

    def at(self, temperature: float) -> Predictions:
        """Return a trial's predictions with its logits divided by a temperature; see `Bundle`."""
        if temperature == 1:
            return self
        assert self.clips is not None, "a fusion has no logits of its own"
        return _voted(self.clips, self.truth, self.track_ids, temperature)

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
        assert self.clips is not None
        about = json.dumps({"track_ids": self.track_ids, "metrics": self.metrics})
        archive = io.BytesIO()
        np.savez_compressed(
            archive, about=np.array(about), truth=self.truth, probabilities=self.probabilities,
            hard=self.hard, clip_confusion=self.clip_confusion, **vars(self.clips),
        )  # fmt: skip
        trial_folder(study, trial_id).write_bytes(_file(split), archive.getvalue())

    @classmethod
    def read(cls, study: Folder, trial_id: str, split: str) -> Predictions | None:
        """Read kept predictions; None if there are none or they are damaged."""
        try:
            content = trial_folder(study, trial_id).read_bytes(_file(split))
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if archive.testzip() is not None:  # numpy does not read to the checksums
                    return None
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
                arrays = ("truth", "probabilities", "hard", "clip_confusion")
                found = cls(
                    track_ids=tuple(about["track_ids"]), metrics=about["metrics"],
                    clips=Clips(*(stored[one.name] for one in fields(Clips))),
                    **{name: stored[name] for name in arrays},
                )  # fmt: skip
            return found if found._is_whole() else None
        except (*DAMAGE, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def _is_whole(self) -> bool:
        """Return True if there are finite probabilities for each track."""
        t, counts, clips = len(self.track_ids), self.clip_confusion, self.clips
        return bool(
            counts is not None
            and clips is not None
            and clips.logits.shape[1:] == (len(clips.track), len(counts))
            and len(clips.y) == len(clips.track)
            and self.truth.shape == (t,)
            and self.probabilities.shape == self.hard.shape == (t, len(counts))
            and np.isfinite(self.probabilities).all()
        )


def _file(split: str) -> str:
    return f"answers/{split}.npz"  # the name on disk since the first version


@dataclass(frozen=True)
class Clips:
    """The ``n`` clips of a split as a trial predicts them.

    Attributes:
        logits: Logits of the crops of the clips ``float32[c, n, k]``.
        y: Class of each clip ``[n]``.
        track: Index of the track of each clip ``[n]``.
    """

    logits: NDArray[np.float32]
    y: NDArray[np.int64]
    track: NDArray[np.int64]


def predict_split(study: Folder, spec: TrialSpec, split: str) -> Predictions:
    """Predict a split from stored feature rows, with the weights of the best epoch.

    With folds, each validation clip is predicted by the model that has not seen it.

    Args:
        study: Folder of the study.
        spec: The trial.
        split: The split.

    Raises:
        CheckpointError: The trial has no intact checkpoint.
    """
    folds: Sequence[int | None] = spec.folds or [None]
    catch_up(study, spec)
    parts = [_predict_part(study, spec, split, fold) for fold in folds]
    before = np.cumsum([0, *(len(names) for _, _, names in parts)])
    clips = Clips(
        np.concatenate([one.logits for one, _, _ in parts], axis=1),
        np.concatenate([one.y for one, _, _ in parts]),
        np.concatenate([p[0].track + n for p, n in zip(parts, before, strict=False)]),
    )
    truth = np.concatenate([truth for _, truth, _ in parts])
    return _voted(clips, truth, tuple(name for _, _, names in parts for name in names))


def _voted(
    clips: Clips, truth: NDArray[np.int64], names: tuple[str, ...], temperature: float = 1.0
) -> Predictions:
    """Let the clips of each track vote."""
    sums = metrics.EvalSums.zeros(len(truth), clips.logits.shape[2], torch.device("cpu"))
    logits, y, track = map(torch.tensor, vars(clips).values())  # copies, as Ray's are read-only
    sums.add(metrics.mean_of_crops(logits, temperature), y, track)
    return Predictions(
        track_ids=names,
        truth=truth,
        probabilities=sums.soft_votes(),
        hard=sums.hard_votes(),
        clip_confusion=sums.clip_confusion.numpy(),
        metrics=metrics.evaluation(sums, truth),
        clips=clips,
    )


def _predict_part(
    study: Folder, spec: TrialSpec, split: str, fold: int | None
) -> tuple[Clips, NDArray[np.int64], tuple[str, ...]]:
    """Predict a split with one trained model; return its clips, and class and name of a track."""
    parts = spec.assemble(Alone(torch.device("cpu")), from_weights=False, fold=fold)
    parts.classifier.load_state_dict(_best_weights(study, spec, fold))
    parts.classifier.eval()
    crops = parts.recipe.crops
    found = [
        (metrics.crop_logits(parts.classifier, one.x, crops), one.y, one.track)
        for one in parts.feed.evaluation(split)
    ]
    logits, y, track = zip(*found, strict=True)
    clips = Clips(torch.cat(logits, dim=1).numpy(), torch.cat(y).numpy(), torch.cat(track).numpy())
    rows = parts.arrays.splits[split]
    names = tuple(parts.arrays.track_ids[number] for number in rows.tracks)
    return clips, parts.arrays.labels_of(split), names


def export_bundle(
    study: Folder, spec: TrialSpec, target: Path, origin: dict[str, Any], temperature: float = 1.0
) -> Path:
    """Export the best epoch of a trial as a folder that `tuner.predict` reads.

    Raises:
        CheckpointError: The trial has no intact checkpoint.
    """
    catch_up(study, spec)
    parts = spec.assemble(Alone(torch.device("cpu")), from_weights=False)
    weights = _best_weights(study, spec)
    bundle = replace(parts.bundle, temperature=temperature, origin=origin)
    if (embedding := bundle.embedding(with_weights=True)) is not None:
        # A file of the user's is not needed any more: its weights are in the bundle.
        by_name = without_files(bundle.feature.networks)
        feature = bundle.feature.model_copy(update={"network": by_name})
        bundle = replace(bundle, feature=feature)
        weights |= {EMBEDDING + name: value for name, value in embedding.state_dict().items()}
    return save_bundle(target, bundle, weights)


def training_profile(spec: TrialSpec) -> Profile:
    """Describe the tracks that a trial learned from; see `tuner.training.profile`.

    Raises:
        OSError, ValueError, LookupError: The feature set is damaged.
    """
    parts = spec.assemble(Alone(torch.device("cpu")), from_weights=False)
    learned = ("train", "val") if spec.stage == "final" else ("train",)
    source = open_feature_set(Folder.at(spec.feature_set))
    return profile_of(parts.arrays, source, parts.bundle.feature, learned)


def export_fusion(
    study: Folder,
    specs: Sequence[TrialSpec],
    weights: Sequence[float],
    target: Path,
    origin: dict[str, Any],
    temperature: float = 1.0,
) -> Path:
    """Export the best epochs of the members of a fusion in one folder, as `export_bundle` does.

    The members share one temperature; see `tuner.training.calibration`.

    Raises:
        CheckpointError: A trial has no intact checkpoint.
    """
    for number, spec in enumerate(specs):
        of_member = {"study": origin["study"], "trial_id": spec.trial_id}
        export_bundle(study, spec, member_folder(target, number), of_member, temperature)
    return save_fusion(target, weights, origin)


def _best_weights(
    study: Folder, spec: TrialSpec, fold: int | None = None
) -> dict[str, torch.Tensor]:
    return best_weights(checkpoint_folder(trial_folder(study, spec.trial_id), fold))
