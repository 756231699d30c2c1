"""Second stage: try configurations, stopping the weak ones early."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from tuner.errors import StudyError
from tuner.ledger import selection
from tuner.trials import schedule
from tuner.trials.plan import Plan, Proposal
from tuner.trials.samplers import build_sampler

if TYPE_CHECKING:
    from tuner.config import Search
    from tuner.ledger.selection import TrialRow
    from tuner.study.context import Context
    from tuner.trials.plan import Source
    from tuner.trials.samplers import Sampler


def search_space(study: Context) -> None:
    """Run the trials that the study's search is missing.

    Raises:
        StudyError: no trial succeeded.
        PipelineError: a disk is full.
    """
    if study.ledger.last("searched"):
        return
    search = study.space.template.search
    rows = [row for row in study.rows().values() if row.stage == "search"]
    if rows and not selection.leaderboard(rows, study.metric, study.maximise):
        # Every trial failed, as on a full disk or a broken node: the fault was not the trials'.
        for row in rows:
            row.status = "running"
    wanted = _num_trials(study)
    missing = wanted - sum(row.status != "running" for row in rows)
    if missing > 0:
        first = 1 + max((row.ordinal for row in rows), default=-1)
        sampler = build_sampler(study.space, first)
        source = _SearchSource(study, sampler, rows, first, wanted)
        run_stage(study, source, "search", missing, _remaining_budget(study, search))
    ranked = selection.leaderboard(study.rows().values(), study.metric, study.maximise)
    if not ranked:
        errors = [row.error for row in study.rows().values() if row.error]
        reason = f"the first error: {errors[0]}" if errors else "the budget was too short for one"
        raise StudyError(f"no trial succeeded; {reason}")
    # A budget can end a search before its last trial; a study that goes on must not search again.
    study.record("searched", trials=len(study.rows()))


def _num_trials(study: Context) -> int:
    """Trials of the search: as many as asked, but no more than there are configurations."""
    asked, size = study.space.template.search.trials, study.space.grid_size()
    if size is not None and size < asked:
        study.progress.say(f"the space has {size} configuration(s); {asked} trials were asked for")
        return size
    return asked


def _remaining_budget(study: Context, search: Search) -> float | None:
    """Seconds that earlier runs of the study have left of the search's budget."""
    if search.budget_seconds is None:
        return None
    seconds = (study.ledger.last("study_end") or {}).get("seconds", {})
    spent = float(seconds.get("search", 0.0))
    return max(1.0, search.budget_seconds - spent)


def run_stage(
    study: Context, source: Source, stage: str, count: int, budget_seconds: float | None
) -> None:
    """Run a stage's trials; only those of the search are stopped early."""
    study.progress.stage(stage, count)
    epochs = [study.space.template.train.epochs]
    if (open_epochs := study.space.ranges.get("train.epochs")) is not None:
        epochs = [value for value in open_epochs.ends if isinstance(value, int)]
    ended = [
        r.trial_id for r in study.rows().values() if r.stage == stage and r.status != "running"
    ]
    schedule.run(
        Plan(
            study=study.place.folder.resolve(),
            experiment=study.space.template,
            source=source,
            count=count,
            record=study.record,
            history=[
                (record["trial_id"], record["epoch"], record["metrics"])
                for record in study.ledger.records("epoch")
            ],
            ended=frozenset(ended),
            early_stopping=stage == "search",
            max_epochs=max(epochs),
            budget_seconds=budget_seconds,
        ),
        study.cluster,
    )


class _SearchSource:
    """Unfinished trials of an earlier run first, then the sampler's proposals."""

    def __init__(
        self, study: Context, sampler: Sampler, rows: list[TrialRow], first: int, stop: int
    ) -> None:
        self._study, self._sampler = study, sampler
        for row in rows:
            if row.status == "running":
                sampler.resume(row.params)
            else:
                sampler.tell(row.ordinal, row.params, row.value(study.metric))
        self._unfinished = [row for row in rows if row.status == "running"]
        self._next, self._stop = first, stop

    def next(self) -> Proposal | None:
        """The next trial."""
        search = self._study.space.template.search
        if self._unfinished:
            row = self._unfinished.pop(0)
            spec = self._study.spec(row.trial_id, "search", row.seed, row.experiment)
            return Proposal(spec, row.ordinal, row.params, recorded=True)
        if self._next >= self._stop or (sample := self._sampler.ask(self._next)) is None:
            return None
        ordinal, self._next = self._next, self._next + 1
        # The name follows from what the trial is, so it is the same wherever and whenever it is
        # proposed.
        identity = json.dumps([self._study.place.name, sample.params, search.seed, ordinal])
        digest = hashlib.blake2b(identity.encode(), digest_size=3).hexdigest()
        trial_id = f"t{ordinal:03d}-{digest}"
        spec = self._study.spec(trial_id, "search", search.seed, sample.experiment)
        return Proposal(spec, ordinal, sample.params)

    def ended(self, proposal: Proposal, value: float | None) -> None:
        """Let the sampler learn."""
        self._sampler.tell(proposal.ordinal, proposal.params, value)
