"""Train one trial, with a retry if memory runs out; and the executor in the Tune process."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from statistics import fmean
from typing import Any

import torch

from pipelines.storage import Folder
from pipelines.storage.mirror import Mirror
from tuner.errors import DivergedError
from tuner.training.checkpoint import (
    Checkpoint,
    best_of,
    drop_old,
    name_of,
    newest_checkpoint,
    newest_epoch,
    save_checkpoint,
)
from tuner.training.feed import Alone, Workers
from tuner.training.loop import epochs, find_rate, fit_at_once
from tuner.training.lr_finder import RangeTest
from tuner.training.pace import seconds_per_epoch
from tuner.trials.assembly import TrialParts, TrialSpec, checkpoint_folder, trial_folder
from tuner.trials.costs import known_costs, measure_once
from tuner.trials.out_of_memory import OutOfMemory, is_out_of_memory, reason_of

RANGE_TEST_FILE = "lr_finder.json"
SPLIT_FACTOR = 2  # times more micro-batches after memory ran out
SECONDS_BETWEEN_SAVES = 20.0
"""Within a fold, whose epochs nobody sees; at most this much is trained again after a kill."""


def train(study: Folder, spec: TrialSpec, workers: Workers) -> Iterator[dict[str, Any]]:
    """Train on this worker from the newest checkpoint on, and yield what to report.

    Rank 0 writes a checkpoint before it yields, so every reported epoch can be resumed from; an
    epoch that was on its way to a bucket when the process died is trained again. After a resume,
    the epochs of the checkpoint that are not in the ledger are yielded first, and always
    its own: workers train on while their reports are on the way.

    Yields:
        ``epoch`` (from 1) and the metrics of the epoch. A loss that is not finite yields one last
        report with ``error`` and the worst finite value of the metric, so that no searcher or
        scheduler meets NaN. The second time that memory runs out does the same; after the first,
        training continues with half the clips at once, and every report says so in ``note``.
        The costs that the search asks for are in every report; a trial that breaks a limit of
        them reports epoch 0 and ends.

    Raises:
        StorageFullError: No room for a checkpoint; names the path.
    """
    folder = trial_folder(study, spec.trial_id)
    note = OutOfMemory.read(folder)
    last_epoch, costs = 0, dict[str, float]()
    while note is None or not note.again:
        try:
            for report in _train_once(folder, spec, workers, SPLIT_FACTOR if note else 1):
                last_epoch, costs = report["epoch"], costs or known_costs(folder, spec)
                yield {**costs, **report, **({"note": str(note)} if note else {})}
            return
        except DivergedError as error:
            yield _failure(spec, error.epoch, str(error))
            return
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            note = OutOfMemory(last_epoch + 1, reason_of(error), again=note is not None)
            note.write(folder)
            if workers.size > 1:
                # Other ranks wait in a collective. Fail here, so that Tune restarts all of them,
                # and they read the note.
                raise
    reason = f"out of memory, with half the clips at once too: {note.reason}"
    yield _failure(spec, note.epoch, reason)


def _failure(spec: TrialSpec, epoch: int, error: str) -> dict[str, Any]:
    """Return the last report of a trial that failed, with the worst finite value."""
    search = spec.experiment.search
    return {"epoch": epoch, "error": error, search.score: 0.0 if search.mode == "max" else 1e9}


def _train_once(
    folder: Folder, spec: TrialSpec, workers: Workers, factor: int
) -> Iterator[dict[str, Any]]:
    """Train to the end, with ``factor`` times as many micro-batches as asked for.

    With folds, each report is one fold, and its metrics are the means over the folds so far.
    """
    if not spec.folds:
        yield from _epochs(folder, spec, workers, factor, None)
        return
    found: list[dict[str, Any]] = []
    for fold in spec.folds:
        *_, last = _epochs(folder, spec, workers, factor, fold)
        if not last["epoch"]:
            yield last
            return
        found.append(last)
        yield {
            "epoch": len(found),
            **{name: fmean(one[name] for one in found) for name in last if name != "epoch"},
        }


def _epochs(
    folder: Folder, spec: TrialSpec, workers: Workers, factor: int, fold: int | None
) -> Iterator[dict[str, Any]]:
    """Train the trial, or one of its folds, from its newest checkpoint; yield each epoch."""
    checkpoints = checkpoint_folder(folder, fold)
    saves = _Saves(checkpoints)
    resume = newest_checkpoint(checkpoints)
    reports = [*resume.earlier, resume.metrics] if resume is not None else []
    if resume is not None:
        first = resume.epoch - len(reports) + 1  # an earlier version kept none
        known = min(spec.recorded, resume.epoch - 1)
        for epoch, metrics in enumerate(reports, start=first):
            if epoch > known and (fold is None or epoch == resume.epoch):
                yield {"epoch": epoch, **metrics}
        if resume.epoch == spec.experiment.num_epochs:
            return
    parts = spec.assemble(workers, from_weights=resume is None, fold=fold)
    recipe, feed = parts.recipe, parts.feed
    resources = spec.experiment.resources
    # Fewer workers than might be take more parts of a batch each, and no larger ones.
    parts_of_each = resources.most / workers.size if resources.elastic else 1
    accumulate = math.ceil(recipe.train.accumulate * factor * parts_of_each)
    train = recipe.train.model_copy(update={"accumulate": accumulate})
    recipe = replace(recipe, train=train)
    if factor > 1:
        feed = replace(feed, cache_bytes=0)  # leave the memory of a GPU to the model
    at_once = spec.experiment.model.fits_at_once
    if not measure_once(folder, spec, parts, workers, is_fitted=False):
        yield {"epoch": 0}
        return
    if not at_once and recipe.optim.lr == "find":
        rate = _found_rate(folder, replace(parts, recipe=recipe, feed=feed), workers)
        recipe = replace(recipe, optim=recipe.optim.model_copy(update={"lr": rate}))
    is_fold, last = fold is not None, spec.experiment.num_epochs
    learn = fit_at_once if at_once else partial(epochs, validate_last_only=is_fold)
    saved = time.monotonic()
    for checkpoint in learn(parts.classifier, feed, recipe, workers, resume):
        measure_once(folder, spec, parts, workers, is_fitted=True)
        is_due = checkpoint.epoch == last or time.monotonic() - saved > SECONDS_BETWEEN_SAVES
        if workers.rank == 0 and (is_due or not is_fold):
            saves.add(replace(checkpoint, earlier=reports), is_last=checkpoint.epoch == last)
            saved = time.monotonic()
        reports.append(checkpoint.metrics)
        yield {"epoch": checkpoint.epoch, **checkpoint.metrics}


class _Saves:
    """The checkpoints that a process writes, on a disk at once, to a bucket while it trains on."""

    def __init__(self, folder: Folder) -> None:
        def drop(own: Folder, newest: str) -> None:
            drop_old(folder, newest, best_of(own / newest))

        self._mirror = Mirror.of(folder, drop)
        self._mirror.settle()  # this process may still be sending what it trained before

    def add(self, checkpoint: Checkpoint, *, is_last: bool) -> None:
        save_checkpoint(self._mirror.folder, checkpoint)
        self._mirror.send(name_of(checkpoint.epoch))
        if is_last:  # other processes read it
            self._mirror.settle()


def _found_rate(folder: Folder, parts: TrialParts, workers: Workers) -> float:
    """Return the learning rate that the trial's range test suggests; it runs once per trial.

    A resumed trial reads the file, because the test starts from untrained weights.
    """
    try:
        return RangeTest.from_json(folder.read_json(RANGE_TEST_FILE)).suggestion
    except (OSError, ValueError, LookupError, TypeError):
        pass  # not run yet, or damaged: running it again gives the same rate
    test = find_rate(parts.classifier, parts.feed, parts.recipe, workers)
    if workers.rank == 0:
        folder.write_json(RANGE_TEST_FILE, asdict(test))
    return test.suggestion


def catch_up(study: Folder, spec: TrialSpec) -> None:
    """Train epochs again that a trial has reported and whose checkpoints a bucket has not.

    Its process died, or was ended, while the last of them were on their way.
    """
    checkpoints = checkpoint_folder(trial_folder(study, spec.trial_id))
    if not study.is_remote or spec.folds or newest_epoch(checkpoints) >= spec.recorded:
        return
    for report in train(study, spec, Alone(torch.device("cpu"))):
        if report["epoch"] >= spec.recorded:
            break
    _Saves(checkpoints)


def pick_device(gpus: float) -> torch.device:
    """Return the device of a worker that was given ``gpus``."""
    return torch.device("cuda") if gpus > 0 and torch.cuda.is_available() else torch.device("cpu")


def time_epoch(spec: TrialSpec) -> float:
    """Return the seconds of an epoch of a trial with one worker, from a few of its steps."""
    resources = spec.experiment.resources
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    workers = Alone(pick_device(resources.gpus_per_worker))
    parts = spec.assemble(workers, from_weights=False)
    validated = 1 / spec.experiment.num_epochs if spec.folds else 1.0
    return seconds_per_epoch(parts.classifier, parts.feed, parts.recipe, workers, validated)


def name_process(trial_id: str) -> None:
    """Show the trial as the title of this process, which Ray's dashboard and ``ps`` list.

    Ray sets a title of its own whenever it asks a process for its next report.
    """
    from ray._raylet import setproctitle  # type: ignore[attr-defined]

    setproctitle(f"ray::trial {trial_id}")


def run_in_process(config: dict[str, Any]) -> None:
    """Train a single-worker trial in the Tune process and report each epoch; a Tune trainable.

    Args:
        config: ``study`` (address of its folder) and ``trial_id``.
    """
    from ray import tune

    study = Folder.at(config["study"])
    spec = TrialSpec.read(study, config["trial_id"])
    resources = spec.experiment.resources
    # Two trials with a thread pool each would compete for the same cores.
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    name_process(spec.trial_id)
    for report in train(study, spec, Alone(pick_device(resources.gpus_per_worker))):
        tune.report(report)
        name_process(spec.trial_id)
