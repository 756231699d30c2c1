"""Run proposed trials with Ray Tune and record their results in the ledger."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher

from pipelines.storage import Folder
from tuner.errors import StudyError
from tuner.models.resources import Resources
from tuner.trials.cluster import Room
from tuner.trials.recorder import Recorder
from tuner.trials.trial import run_in_process
from tuner.trials.worker import (
    PLACEMENT_GROUP,
    TRAIN_SCRATCH,
    free_leftover_groups,
    free_placement_group,
    run_on_workers,
    worker_resources,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray.tune.experiment import Trial

    from tuner.trials.cluster import Cluster
    from tuner.trials.plan import Plan

TUNE_SCRATCH = "tune"


class _NotSaved:
    """Object pickled as empty: Tune saves it, but a study resumes from its ledger only."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Searcher(_NotSaved, Searcher):
    """Adapter from the stage's proposals to Tune's interface."""

    def __init__(self, recorder: Recorder, study: str) -> None:
        super().__init__()
        self._recorder, self._study = recorder, study

    def set_search_properties(self, *_args: Any, **_spec: Any) -> bool:
        """Accept Tune's metric and mode, which the proposer knows already."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial as a Tune configuration."""
        name = self._recorder.next_trial()
        if name is None:  # Tune asks again after the next event if it gets no answer
            return None if self._recorder.may_promote() else str(Searcher.FINISHED)
        resources = self._recorder.running[name].model_dump(mode="json")
        return {"study": self._study, "trial_id": name, "resources": resources}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: the proposer reads the ledger."""

    def save(self, checkpoint_path: str) -> None:
        """Write the file that Tune expects, empty."""
        Path(checkpoint_path).touch()


class _AsManyAsFit(_NotSaved, ConcurrencyLimiter):
    """Limiter of the trials at once, which follows the cluster while it grows and shrinks."""

    def __init__(self, searcher: Searcher, room: Room, recorder: Recorder) -> None:
        super().__init__(searcher, room.trials())
        self._room, self._recorder = room, recorder

    def get_state(self) -> dict[str, Any]:
        """Return nothing to save."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial as a Tune configuration, if there is room for it."""
        self.max_concurrent = self._room.trials([*self._recorder.running.values()])
        found: dict[str, Any] | str | None = super().suggest(trial_id)
        return found


class _Verdicts(_NotSaved, FIFOScheduler):
    """Adapter from recorded verdicts to Tune's interface."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self._furthest: dict[str, int] = {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Pass on what a trial reports."""
        must_stop = self._recorder.report(_name_of(trial), result)
        name, epoch = _name_of(trial), result.get("epoch", 0)
        if epoch > self._furthest.get(name, 0):
            self._furthest[name] = epoch
            trial.run_metadata.num_failures = 0  # it may lose another node, as long as it gets on
        return str(TrialScheduler.STOP if must_stop else TrialScheduler.CONTINUE)


class _Events(_NotSaved, tune.Callback, tune.Stopper):
    """Forwarder of Tune's events to the recorder, which ends the stage."""

    def __init__(self, recorder: Recorder, room: Room) -> None:
        self._recorder, self._room = recorder, room

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        """Pass on that a trial has ended or was stopped."""
        _free_workers(trial)
        self._recorder.end(_name_of(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Pass on why a trial failed."""
        _free_workers(trial)
        path = Path(trial.error_file) if trial.error_file else None
        text = path.read_text() if path is not None and path.exists() else ""
        self._recorder.fail(_name_of(trial), text)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single trial; that is the scheduler's task."""
        return False

    def stop_all(self) -> bool:
        """Return True if the stage is over, also because no node is left that could go on."""
        if reason := self._room.lost():
            self._recorder.fatal = StudyError(
                f"resources: {reason}; the same command goes on when there is one"
            )
        return self._recorder.is_over()


def _name_of(trial: Trial) -> str:
    return str(trial.config["trial_id"])


def _free_workers(trial: Trial) -> None:
    if (hex_id := (trial.last_result or {}).get(PLACEMENT_GROUP)) is not None:
        free_placement_group(hex_id)


def _reserved(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """Return what Tune reserves for a trial."""
    resources = Resources.model_validate(config["resources"])
    if resources.is_alone:
        labels = {"bundle_label_selector": [resources.labels]} if resources.labels else {}
        return tune.PlacementGroupFactory([worker_resources(resources)], **labels)
    # This process only waits for its workers, which reserve their own resources; a CPU reserved
    # here would be missing there. Tune refuses an empty reservation, hence one byte of memory.
    return tune.PlacementGroupFactory([{"memory": 1}])


def _trainable(asked: Sequence[Resources]) -> Any:
    """Return the executor for these requests, with what Tune reserves for each."""
    executors = {True: run_in_process, False: run_on_workers}
    kinds = {one.is_alone for one in asked}
    executor = executors[kinds.pop()] if len(kinds) == 1 else _run_in_either
    return tune.with_resources(executor, _reserved)


def _run_in_either(config: dict[str, Any]) -> None:
    is_alone = Resources.model_validate(config["resources"]).is_alone
    (run_in_process if is_alone else run_on_workers)(config)


def run(plan: Plan, cluster: Cluster) -> None:
    """Run the trials of a stage until all have ended.

    Raises:
        StudyError: A trial found its disk full; names the path.
        UsageError: A trial asks for more than the cluster has.
    """
    asked = plan.resources or (plan.experiment.resources_of_trial,)
    recorder, room = Recorder(plan), Room(cluster, *asked)
    events = _Events(recorder, room)
    # The ledger names each failure in one line; Tune would print a traceback as well.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Tune would keep 25 KB of each trial for its own restoration, and write them again and again.
    TuneController._mark_trial_to_checkpoint = lambda _self, _trial: None
    # Tune would hand these over in a runtime environment, which Ray's agents log.
    class_cache.ENV_VARS_TO_PROPAGATE -= {
        name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")
    }
    try:
        tune.Tuner(
            _trainable(asked),
            tune_config=tune.TuneConfig(
                search_alg=_AsManyAsFit(_Searcher(recorder, str(plan.study)), room, recorder),
                scheduler=_Verdicts(recorder),
                num_samples=-1,  # a trial that is promoted is another one for Tune
                # Starting a process and importing torch takes most of a short trial.
                reuse_actors=all(one.is_alone for one in asked),
                trial_dirname_creator=_name_of,
                trial_name_creator=_name_of,
            ),
            run_config=tune.RunConfig(
                name=f"stage-{os.getpid()}",
                storage_path=str(plan.study.here() / TUNE_SCRATCH),
                callbacks=[events],
                stop=events,
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=0,
                # In a notebook, Tune's own choice clears what the study has printed.
                progress_reporter=tune.CLIReporter(),
            ),
        ).fit()
    except Exception:
        if recorder.fatal is None:  # on a full disk, Tune cannot read what it could not write
            raise
    finally:
        free_leftover_groups()
        for leftovers in (TUNE_SCRATCH, TRAIN_SCRATCH):
            Folder(plan.study.here()).remove(leftovers)
    recorder.end_cut_off()
    if recorder.fatal is not None:
        raise recorder.fatal
