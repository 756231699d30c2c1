"""A search that trains nothing: the study's own code over known curves, in simulated time."""

from __future__ import annotations

import heapq
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipelines.storage import Folder
from tuner.ledger.journal import StudyPaths
from tuner.ledger.selection import leaderboard
from tuner.ledger.trial_rows import TrialRows
from tuner.study.context import Context
from tuner.study.stages import search_space
from tuner.trials.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tuner.config import Space
    from tuner.ledger.journal import Record
    from tuner.ledger.trial_rows import TrialRow
    from tuner.simulation.curves import Curve, Curves
    from tuner.trials.plan import Plan, Proposal


class Moment(NamedTuple):
    """Where a simulated search stood when a trial had ended.

    Attributes:
        seconds: Simulated time.
        epochs: Number of reports so far, of all trials.
        chosen: Index of the configuration that was first in the ranking then.
        value: What its trial had reached.
    """

    seconds: float
    epochs: int
    chosen: int
    value: float


class Course(NamedTuple):
    """A simulated search from its begin to its end.

    Attributes:
        moments: Where it stood, one for each end of a trial.
        rows: Its trials.
        seconds: Simulated time of its end.
        epochs: Number of reports of all trials.
    """

    moments: Sequence[Moment]
    rows: Sequence[TrialRow]
    seconds: float
    epochs: int


class _Journal:
    """The records of a simulated study, in memory."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._records: list[Record] = []
        self._newest: dict[str, Record] = {}

    def append(self, kind: str, **fields: Any) -> Record:
        time_ms = round(1000 * self._clock())
        record = {"seq": len(self._records), "time_ms": time_ms, "kind": kind, **fields}
        self._records.append(record)
        self._newest[kind] = record
        return record

    def records(self) -> Iterator[Record]:
        return iter(self._records)

    def last(self, kind: str) -> Record | None:
        return self._newest.get(kind)


class _Silent:
    """A terminal and a tracker that show nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_args, **_options: None


class _Unread(NamedTuple):
    """What the processes of a trial would read, if there were any."""

    stage: str
    seed: int
    experiment: Any
    feature_set: str = ""

    def write(self, study: Folder) -> None:
        """Write nothing."""


class _Study(Context):
    """A study whose trials replay curves; all else is the code of real studies."""

    def __init__(self, curves: Curves, space: Space, slots: int) -> None:
        nothing: Any = _Silent()
        journal: Any = _Journal(lambda: self.seconds)
        paths = StudyPaths(Folder(Path()), space.name, Path())
        super().__init__(space, paths, nothing, journal, nothing, nothing)
        self.curves, self.slots = curves, slots
        self.seconds, self.clock = 0.0, lambda: self.seconds
        self.moments: list[Moment] = []
        self.known = TrialRows()
        self.chosen: dict[str, int] = {}  # index of each trial's configuration
        self.replayed: dict[str, Curve] = {}
        self.epochs: dict[str, int] = {}

    def record(self, kind: str, **fields: Any) -> Record:
        record = self.ledger.append(kind, **fields)
        self.known.take(record)
        return record

    def rows(self, stage: str | None = None) -> dict[str, TrialRow]:
        return self.known

    def spec(self, trial: Proposal | TrialRow) -> Any:
        return _Unread(trial.stage, trial.seed, trial.experiment)

    def run_trials(self, plan: Plan) -> None:
        """Run the trials of a plan in simulated time, one report after another in each slot."""

        def propose(trials: Sequence[TrialRow]) -> Proposal | None:
            proposal = plan.proposer(trials)
            return proposal and self._nearest(proposal)

        recorder = Recorder(replace(plan, proposer=propose))
        running: list[tuple[float, str]] = []  # the next report of each trial that runs
        while True:
            while len(running) < self.slots and (name := recorder.next_trial()) is not None:
                heapq.heappush(running, (self.seconds + self._next_seconds(name), name))
            if not running:
                break
            self.seconds, name = heapq.heappop(running)
            if recorder.is_over():
                break
            curve, epoch = self.replayed[name], self.epochs.get(name, 0) + 1
            self.epochs[name] = epoch
            must_stop = recorder.report(name, {"epoch": epoch, **curve.reports[epoch - 1]})
            if must_stop or epoch == len(curve.reports):
                recorder.end(name)
                self._note_choice()
            else:
                heapq.heappush(running, (self.seconds + self._next_seconds(name), name))
        recorder.end_cut_off()
        self._note_choice()

    def _nearest(self, proposal: Proposal) -> Proposal | None:
        """Return the known configuration that is nearest to a proposed one, each once."""
        if len(self.chosen) == len(self.curves.configurations):
            return None
        index = self.curves.nearest(proposal.params, [*self.chosen.values()])
        self.chosen[proposal.trial_id] = index
        known = self.curves.configurations[index]
        drawn = np.random.default_rng((proposal.seed, index)).integers(len(known.curves))
        self.replayed[proposal.trial_id] = known.curves[int(drawn)]
        return replace(proposal, experiment=known.experiment, params=known.params)

    def _next_seconds(self, name: str) -> float:
        return self.replayed[name].seconds[self.epochs.get(name, 0)]

    def _note_choice(self) -> None:
        ranked = leaderboard(self.known.values(), self.ranking)
        if ranked:
            chosen, value = self.chosen[ranked[0].trial_id], ranked[0].reached(self.metric)
            epochs = sum(self.epochs.values())
            self.moments.append(Moment(self.seconds, epochs, chosen, value))


def simulate(curves: Curves, space: Space, slots: int) -> Course:
    """Search known curves as a study would.

    What the sampler proposes becomes the nearest configuration that is known and has not been
    tried, and the sampler learns from that one. One training of it is replayed, drawn by the seed
    of the search.

    Args:
        curves: The curves.
        space: The space that they are from, with the search and the scheduler to simulate.
        slots: Number of trials that run at once.

    Raises:
        StudyError: No trial ended.
    """
    study = _Study(curves, space, slots)
    study.record("baselines", val_tracks=curves.num_tracks, rows=[])
    search_space(study)
    rows = list(study.known.values())
    return Course(study.moments, rows, study.seconds, sum(study.epochs.values()))
