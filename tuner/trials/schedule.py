"""Run a list of trials through Ray Tune: proposals in, ledger records out."""

from __future__ import annotations

import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.search import Searcher

from tuner.errors import StudyError
from tuner.training.recipe import is_better
from tuner.trials.asha import build_scheduler
from tuner.trials.cluster import trials_at_once
from tuner.trials.trial import run_in_process
from tuner.trials.worker import PLACEMENT_GROUP, run_on_workers

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

    from tuner.config import Experiment
    from tuner.trials.cluster import Cluster
    from tuner.trials.plan import Plan, Proposal

REPORTED_PREFIXES = ("train_", "val_")


class _NotSaved:
    """Stays out of the pickle that Tune writes at the start; Tune's own resume is not used."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


@dataclass
class _Running:
    """A trial in Tune's hands."""

    proposal: Proposal
    recorded: bool
    last_epoch: int = 0
    best: dict[str, Any] | None = None
    error: str | None = None
    note: str | None = None
    has_ended: bool = False


class _State(_NotSaved):
    """What searcher, callback and stopper share about the running stage."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        search = plan.experiment.search
        self.metric, self.maximise = search.metric, search.mode == "max"
        self.by_trial: dict[str, _Running] = {}
        self.fatal: StudyError | None = None

    def note_best(self, running: _Running, epoch: int, metrics: dict[str, float]) -> None:
        """Keep the best epoch."""
        if running.best is None or self._better(running, metrics):
            running.best = {"epoch": epoch, "metrics": metrics}

    def _better(self, running: _Running, metrics: dict[str, float]) -> bool:
        """Whether the trial's process keeps this epoch's weights."""
        assert running.best is not None
        keep = running.proposal.spec.experiment.train.keep
        return is_better(metrics, running.best["metrics"], self.metric, self.maximise, keep)

    def value(self, running: _Running) -> float | None:
        """Best value, or None for a failure."""
        if running.error is not None or running.best is None:
            return None
        return float(running.best["metrics"][self.metric])


class _SourceSearcher(_NotSaved, Searcher):
    """Tune's view of a `Source`."""

    def __init__(self, state: _State) -> None:
        super().__init__()
        self._shared = state

    def set_search_properties(self, *_args: Any, **_spec: Any) -> bool:
        """The source knows metric and mode."""
        return True

    def suggest(self, trial_id: str) -> dict[str, str] | str:
        """The next proposal as a Tune configuration."""
        plan = self._shared.plan
        proposal = plan.source.next()
        if proposal is None:
            return str(Searcher.FINISHED)
        proposal.spec.write(plan.study)
        running = _Running(proposal, proposal.recorded)
        for name, epoch, metrics in plan.history:
            if name == proposal.spec.trial_id:
                self._shared.note_best(running, epoch, metrics)
                running.last_epoch = epoch
        self._shared.by_trial[proposal.spec.trial_id] = running
        return {"study": str(plan.study), "trial_id": proposal.spec.trial_id}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The recorder tells the source; Tune's own id means nothing to it."""

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: the ledger is what a study resumes from."""
        with open(checkpoint_path, "wb"):  # noqa: PTH123 - Tune's signature
            pass

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""


class _Recorder(_NotSaved, tune.Callback):
    """Writes what Tune reports to the ledger, frees placement groups, and tells the source."""

    def __init__(self, state: _State) -> None:
        self._shared = state

    def _of(self, trial: Trial) -> _Running:
        return self._shared.by_trial[trial.config["trial_id"]]

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Record a trial that starts for the first time."""
        self._begin(self._of(trial))

    def _begin(self, running: _Running) -> None:
        """Record a trial's start, once."""
        spec = running.proposal.spec
        if not running.recorded:
            running.recorded = True
            self._shared.plan.record(
                "trial", trial_id=spec.trial_id, stage=spec.stage,
                ordinal=running.proposal.ordinal, seed=spec.seed,
                params=dict(running.proposal.params),
                config=spec.experiment.model_dump(mode="json"),
                parent_trial=running.proposal.parent_trial,
            )  # fmt: skip

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Record an epoch, once: a resumed trial repeats the epoch it resumes from."""
        running = self._of(trial)
        if error := result.get("error"):
            running.error = str(error)
        running.note = result.get("note", running.note)
        epoch = int(result["epoch"])
        if running.error is not None or epoch <= running.last_epoch:
            return
        metrics = {
            key: float(value)
            for key, value in result.items()
            if (key.startswith(REPORTED_PREFIXES) or key == "lr")
            and isinstance(value, int | float)
        }
        running.last_epoch = epoch
        self._shared.note_best(running, epoch, metrics)
        self._shared.plan.record(
            "epoch", trial_id=running.proposal.spec.trial_id, epoch=epoch, metrics=metrics
        )

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        """Record the end of a trial that ran through, was stopped, or diverged."""
        running = self._of(trial)
        status = "completed" if running.last_epoch >= running.proposal.epochs else "stopped"
        self._end(running, "failed" if running.error else status, trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Record a trial whose process raised or died."""
        running = self._of(trial)
        self._begin(running)  # a process that dies while it starts ends without having started
        running.error = reason_of_failure(_text_of(trial.error_file))
        if "StorageFullError" in running.error:
            self._shared.fatal = StudyError(running.error.partition(": ")[2])
        self._end(running, "failed", trial.last_result)

    def end_cut_off(self) -> None:
        """Record the trials that a time budget cut off: Tune ends them without a word."""
        for running in self._shared.by_trial.values():
            # One that Tune had not started yet was never recorded, and is proposed anew.
            if running.recorded and not running.has_ended:
                self._end(running, "stopped", None)

    def _end(self, running: _Running, status: str, last_result: dict[str, Any] | None) -> None:
        running.has_ended = True
        _free_placement_group((last_result or {}).get(PLACEMENT_GROUP))
        self._shared.plan.record(
            "trial_end", trial_id=running.proposal.spec.trial_id, status=status,
            epochs=running.last_epoch, best=running.best, error=running.error, note=running.note,
        )  # fmt: skip
        self._shared.plan.source.ended(running.proposal, self._shared.value(running))


def reason_of_failure(text: str) -> str:
    """The line that matters of the file in which Tune keeps a trial's errors, newest last.

    Of an exception in the trial it is the last line of the traceback, of a process that died the
    first line of what Ray says about it.
    """
    newest = re.sub(r"\x1b\[[0-9;]*m", "", text).rpartition("Failure # ")[
        2
    ]  # Ray colours its text
    lines = [line.strip() for line in newest.splitlines()[1:] if line.strip()]
    if not lines:
        return "the trial's process died"
    return lines[-1] if lines[0].startswith("ray::") else lines[0]


def _text_of(error_file: str | None) -> str:
    """What Tune wrote about a trial's errors; nothing when it could not even do that."""
    path = Path(error_file) if error_file else None
    return path.read_text() if path is not None and path.exists() else ""


def _free_placement_group(hex_id: str | None) -> None:
    """Give back what the workers of an ended Ray Train trial held.

    Ray leaves it reserved when the trial was stopped early and its own cleaner cannot ask the
    dashboard, and the next trial then waits for ever. Removing a group that is gone already does
    nothing.
    """
    if hex_id is None:
        return
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(hex_id))))


def _free_leftovers() -> None:
    """Remove what placement groups of this process are left when no trial runs any more.

    A trial that a time budget ends while its workers start has not told its group yet.
    """
    import ray
    from ray.util.placement_group import placement_group_table

    job = ray.get_runtime_context().get_job_id()
    for hex_id, group in placement_group_table().items():
        if hex_id.endswith(job) and group["state"] != "REMOVED":
            _free_placement_group(hex_id)


class _StopWhenHopeless(_NotSaved, tune.Stopper):
    """Ends the stage when an error would meet every trial, as a full disk does."""

    def __init__(self, state: _State) -> None:
        self._shared = state

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Whether to stop."""
        return self._shared.fatal is not None


def _trainable(experiment: Experiment) -> Any:
    """The executor for the experiment's resources, with what Tune reserves for it."""
    resources = experiment.resources
    if resources.workers == 1:
        bundle: dict[str, float] = {"CPU": resources.cpus_per_worker}
        if resources.gpus_per_worker:
            bundle["GPU"] = resources.gpus_per_worker
        return tune.with_resources(run_in_process, tune.PlacementGroupFactory([bundle]))
    # It only waits for its workers, which reserve for themselves; a processor taken here would be
    # missing there. Tune refuses a reservation of nothing, hence a byte of memory.
    return tune.with_resources(run_on_workers, tune.PlacementGroupFactory([{"memory": 1}]))


def slots(experiment: Experiment, cluster: Cluster) -> int:
    """How many trials of an experiment run at once.

    Raises:
        UsageError: a trial asks for more than the cluster has.
    """
    resources = experiment.resources
    return trials_at_once(
        cluster,
        resources.workers * resources.cpus_per_worker,
        resources.workers * resources.gpus_per_worker,
    )


def run(plan: Plan, cluster: Cluster) -> None:
    """Run a stage's trials to their end.

    Raises:
        StudyError: a trial found no room on its disk; names the path.
        UsageError: a trial asks for more than the cluster has.
    """
    state = _State(plan)
    recorder = _Recorder(state)
    # Failures are told once, in the ledger's words; Tune would add a traceback for each.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    scratch = plan.study / "tune"
    try:
        tune.Tuner(
            _trainable(plan.experiment),
            tune_config=tune.TuneConfig(
                search_alg=_SourceSearcher(state),
                scheduler=build_scheduler(plan),
                num_samples=plan.count,
                max_concurrent_trials=slots(plan.experiment, cluster),
                # Starting a process and importing torch is most of a short trial.
                reuse_actors=plan.experiment.resources.workers == 1,
                time_budget_s=plan.budget_seconds,
                trial_dirname_creator=lambda trial: str(trial.config["trial_id"]),
            ),
            run_config=tune.RunConfig(
                name=f"stage-{os.getpid()}",
                storage_path=str(scratch),
                callbacks=[recorder],
                stop=_StopWhenHopeless(state),
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=0,
            ),
        ).fit()
    finally:
        _free_leftovers()
        for leftovers in (scratch, plan.study / "train"):
            shutil.rmtree(leftovers, ignore_errors=True)
    recorder.end_cut_off()
    if state.fatal is not None:
        raise state.fatal
