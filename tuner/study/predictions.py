"""Answers of trained trials, kept in their folders: a trial predicts each split once."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import StorageFullError, is_storage_full
from tuner.trials.trial import Predictions, trial_folder

if TYPE_CHECKING:
    from pathlib import Path

    from tuner.ledger.selection import TrialRow
    from tuner.study.context import Context


# What reading an archive with a flipped bit stumbles over; it is computed again.
DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, NotImplementedError,
    RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def answers_of(study: Context, rows: list[TrialRow], split: str) -> list[Predictions]:
    """The trials' answers on a split, in the order of ``rows``; only missing ones are computed.

    Raises:
        StudyError: a trial gives no answers.
        StorageFullError: no room to keep them; names the path.
    """
    paths = [
        trial_folder(study.place.folder, row.trial_id) / "answers" / f"{split}.npz" for row in rows
    ]
    found = [_read(path) for path in paths]
    missing = [i for i, one in enumerate(found) if one is None]
    if missing:
        computed = study.predict([rows[i] for i in missing], split)
        for i, one in zip(missing, computed, strict=True):
            try:
                _write(paths[i], one)
            except OSError as error:
                if is_storage_full(error):
                    raise StorageFullError(paths[i].parent) from error
                raise
            found[i] = one
    return [one for one in found if one is not None]


def _write(path: Path, answers: Predictions) -> None:
    """Write beside, then rename: what is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.{os.getpid()}")
    with building.open("wb") as file:
        np.savez_compressed(
            file,
            about=np.array(
                json.dumps({"track_ids": answers.track_ids, "metrics": answers.metrics})
            ),
            truth=answers.truth,
            probabilities=answers.probabilities,
            hard=answers.hard,
            clip_confusion=answers.clip_confusion,
        )
    building.replace(path)


def _read(path: Path) -> Predictions | None:
    """What `_write` wrote; None when it is not there or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            found = Predictions(
                track_ids=tuple(about["track_ids"]),
                truth=stored["truth"],
                probabilities=stored["probabilities"],
                hard=stored["hard"],
                clip_confusion=stored["clip_confusion"],
                metrics=about["metrics"],
            )
    except DAMAGE:
        return None
    return found if _fits(found) else None


def _fits(answers: Predictions) -> bool:
    """Whether there is an answer for each track, and each is a number."""
    t, k = len(answers.track_ids), len(answers.clip_confusion)
    return bool(
        answers.truth.shape == (t,)
        and answers.probabilities.shape == answers.hard.shape == (t, k)
        and np.isfinite(answers.probabilities).all()
    )
