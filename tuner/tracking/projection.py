"""The runs of a study, derived from its ledger records without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.plain_text import for_markdown
from tuner.errors import decorating
from tuner.ledger import shown_settings
from tuner.ledger.selection import Ranking
from tuner.ledger.states import State
from tuner.ledger.summary import VOTES, summarise
from tuner.ledger.trial_rows import FUSION, REFIT, unit_of
from tuner.tracking import shown
from tuner.tracking.datasets import Data, splits_of, used_by
from tuner.tracking.note import note
from tuner.tracking.shown import MLFLOW_STATUS, TOLD, Run, flat

if TYPE_CHECKING:
    from tuner.ledger.journal import Record
    from tuner.ledger.shown_settings import Alternatives

# Records after which the note is written again.
NOTED = {"confirmed", "fused", "test", "registered", "ensemble", "leaky_twin", "study_end"}


class Projection:
    """The runs of one study, extended record by record.

    Attributes:
        parent: The study's run; None before its first record.
        trials: Run of each trial by its id.
        changed: Runs to send by trial, "" for the study; the sender removes what it has sent.
        kinds: One run of the search for each model and set of parameters.
        experiment_tags: Tags of the experiment that holds the runs.
        space_yaml: The space file as it was read.
        metric: The metric that trials are ranked by.
        maximise: True if larger is better.
        told: Tag that tells the best epoch of a trial of the search, or how many folds it ran.
    """

    def __init__(self) -> None:
        self.parent: Run | None = None
        self.trials: dict[str, Run] = {}
        self.changed: dict[str, Run] = {}
        self.kinds: dict[tuple[str, ...], Run] = {}
        self.experiment_tags: dict[str, str] = {}
        self.space_yaml = ""
        self._records: list[Record] = []
        self.metric, self.maximise = "", True
        self._best: float | None = None
        self._best_of_trial: dict[str, float] = {}
        self._num_ended = 0
        self._can_note = True
        self._source: dict[str, str] = {}
        self._address = ""
        self._sets: list[Data] = []
        self._baselines: list[Record] = []
        self._tested: Record | None = None
        self._alternatives: Alternatives = {}
        self._units: dict[str, str] = {}
        self.told = TOLD["epoch"]

    def apply(self, record: Record) -> None:
        """Take in one record with the method ``on_KIND``; a kind without one changes nothing."""
        kind = record["kind"]
        self._records.append(record)
        if kind == "study" and self.parent is None:
            self.parent = self._study(record)
        if self.parent is None:
            return
        if kind in ("trial", "epoch") and self.parent.status != "RUNNING":
            self.parent.set("RUNNING")
        if (handle := getattr(self, f"on_{kind}", None)) is not None:
            handle(record, self.parent)
        self.parent.measure(shown.compared(record), record["time_ms"])
        of_all = kind in ("confirmed", "study_end")  # which may concern any trial
        trials = self.trials if of_all else {record.get("trial_id", "")} & self.trials.keys()
        self.changed |= {"": self.parent, **{name: self.trials[name] for name in trials}}
        if kind in NOTED and self._can_note:
            self._can_note = False  # a note that fails once is not tried again
            with decorating("the note in MLflow"):
                summary = summarise(self._records)
                shown.mark_front(summary, self.parent, self.trials)
                reason = record.get("reason") if kind == "study_end" else ""
                failed = f"**Failed**: {for_markdown(reason)}\n\n" if reason else ""
                self.parent.tag("mlflow.note.content", failed + note(summary))
                if kind == "study_end":
                    step = sum(one["kind"] == "study_end" for one in self._records) - 1
                    self.parent.measure(shown.totals(summary), record["time_ms"], step)
                self._can_note = True

    def _study(self, record: Record) -> Run:
        search, study = record["config"]["search"], record["study"]
        ranking = Ranking.of(search["metric"], search["mode"])
        self.metric, self.maximise = ranking.metric, ranking.maximise
        self.told = TOLD[unit_of("", record["config"])]
        self.experiment_tags = {
            "mlflow.experiment.primaryMetric.name": self.metric,
            "mlflow.experiment.primaryMetric.greaterIsBetter": str(self.maximise),
        }
        self._address = record.get("data") or ""
        self.space_yaml = record.get("source") or ""
        command = f"python -m tuner.run {study}"
        self._source = {"mlflow.source.name": command, "mlflow.source.type": "LOCAL"}
        tags = {"study": study, "study_id": shown.study_id(record), "stage": "study"}
        self._alternatives = shown_settings.alternatives(settings := record["settings"])
        return Run(study, record["time_ms"], tags | self._source, shown.as_params(settings))

    def on_extended(self, record: Record, parent: Run) -> None:
        """Show what was added; parameters of a run cannot change."""
        parent.tag("extended", f"{parent.tags.get('extended', '')} {record['asked']}".strip())
        if space := record.get("space"):
            self.space_yaml = space["source"]
            self._alternatives = shown_settings.alternatives(space["settings"])

    def on_features(self, record: Record, parent: Run) -> None:
        """Show the data and the leakage audit."""
        sets = record["features"]
        parent.tag("fingerprints", " ".join(one["fingerprint"] for one in sets))
        parent.tag("leakage_passed", str(all(one["leakage"]["passed"] for one in sets)).lower())
        self._sets = [split for one in sets for split in splits_of(one, self._address)]
        parent.data = self._sets

    def on_baselines(self, record: Record, parent: Run) -> None:
        """Measure the baselines, first on validation and later on the test tracks."""
        # The best value so far must be the first metric of the study, see `shown.target`.
        self._baselines.append(record)
        if self._num_ended:
            self._measure_baselines(parent)

    def _measure_baselines(self, parent: Run) -> None:
        for record in self._baselines:
            for row in record["rows"]:
                split = "test" if row["test"] else "val"
                if row[split]:
                    parent.measure(flat(f"{split}_{row['name']}", row[split]), record["time_ms"])
        self._baselines.clear()

    def on_trial(self, record: Record, _parent: Run) -> None:
        """Add the run of a trial, or reopen it."""
        trial_id, stage, seed = record["trial_id"], record["stage"], record["seed"]
        if trial_id in self.trials:  # resumed after an interruption
            self.trials[trial_id].set("RUNNING")
            return
        tags = {"trial_id": trial_id, "stage": stage, "seed": str(seed), **self._source}
        # A final run repeats a confirmation run, and that one a search trial.
        origin, parent = trial_id, record["parent_trial"]
        tags |= {"parent_trial": parent} if parent else {}
        tags |= {"leaky": "true"} if stage == "leaky" else {}
        while parent:
            origin, known = parent, self.trials.get(parent)
            parent = known.tags.get("parent_trial") if known else None
        if not trial_id.startswith(FUSION):
            tags["configuration"] = origin
        self._units[trial_id] = unit_of(trial_id, record["config"])
        model = record["config"]["model"]["name"]
        which = "" if trial_id.startswith(FUSION) else f" {origin.partition('-')[0]}"
        which += f" seed {seed}" if stage == "confirm" else ""
        name = f"{stage}{which} {model}"
        read = shown_settings.full(record["params"], record["config"], self._alternatives)
        params = shown.as_params({"model": model, **read})
        repeated = self._repeated(record)
        start_ms = min((run.start_ms for run in repeated), default=record["time_ms"])
        run = self.trials[trial_id] = Run(name, start_ms, tags, params)
        digests = {one.digest for known in repeated for one in known.data}
        if not repeated:  # ledgers of early versions do not name the set of a trial
            only = {one.digest for one in self._sets if len({s.digest for s in self._sets}) == 1}
            digests = {record["fingerprint"]} if "fingerprint" in record else only
        run.data = used_by(stage, digests, self._sets, fit_of_all=trial_id.startswith(REFIT))
        if stage == "search":
            self.kinds.setdefault((model, *params), run)

    def _repeated(self, record: Record) -> list[Run]:
        """Return the runs that a final run repeats without training: its own took no time."""
        trial_id = record["trial_id"]
        if trial_id.startswith(FUSION):
            run = self.trials.get(trial_id)
            named = run.params if run else record["params"]
            names = [name.removeprefix("weight.") for name in named]
        else:
            names = [trial_id.removeprefix("final-")] if trial_id.startswith("final-") else []
        return [self.trials[name] for name in names if name in self.trials]

    def on_epoch(self, record: Record, _parent: Run) -> None:
        """Add the metrics of an epoch."""
        trial_id = record["trial_id"]
        run = self.trials[trial_id]
        if run.status != "RUNNING":  # it was interrupted, or has been promoted
            run.set("RUNNING")
        value = record["metrics"][self.metric]
        best = self._best_of_trial[trial_id] = self._better(
            self._best_of_trial.get(trial_id), value
        )
        run.epochs.append((record["epoch"], record["metrics"]))
        if not self._repeated(record):
            metrics = shown.of_epoch(record, self.metric, best)
            run.measure(metrics, record["time_ms"], record["epoch"])

    def on_costs(self, record: Record, _parent: Run) -> None:
        """Keep the costs until the trial ends: the metric of its epochs must be the first."""
        self.trials[record["trial_id"]].costs = record["costs"]

    def on_trial_end(self, record: Record, parent: Run) -> None:
        """End the run of a trial."""
        run, best, time_ms = self.trials[record["trial_id"]], record["best"], record["time_ms"]
        repeated = self._repeated(record)
        if repeated and not record["trial_id"].startswith(FUSION):
            run.metrics = list(repeated[0].metrics)
        elif best:
            run.measure(shown.of_best(record, self.metric), time_ms, record["epochs"])
        run.measure(run.costs, time_ms)
        if best:
            run.tag(TOLD[self._units[record["trial_id"]]], best["epoch"])
        # Without a final fit, the final run shows what was tested before it.
        shows = (record["trial_id"], run.tags.get("parent_trial"))
        is_final = run.tags["stage"] == "final"
        if is_final and self._tested and self._tested["trial_id"] in shows:
            run.measure(shown.tested(self._tested["metrics"]), self._tested["time_ms"])
        run.tag("state", record["status"])
        run.tag("note", record.get("note"))
        run.tag("error", record["error"])
        end_ms = max((one.end_ms or time_ms for one in repeated), default=time_ms)
        run.set(MLFLOW_STATUS[record["status"]], end_ms)
        if run.tags["stage"] == "search" and record["status"] != State.INTERRUPTED:
            self._num_ended += 1
            if best and record["status"] != State.FAILED:
                self._improve(best["metrics"][self.metric], time_ms, parent)
            self._measure_baselines(parent)

    def _improve(self, value: float, time_ms: int, parent: Run) -> None:
        """Record the best value so far against the number of times that a trial ended."""
        self._best = self._better(self._best, value)
        parent.measure({f"best_so_far_{self.metric}": self._best}, time_ms, self._num_ended)

    def _better(self, known: float | None, value: float) -> float:
        return value if known is None else (max if self.maximise else min)(known, value)

    def on_confirmed(self, record: Record, parent: Run) -> None:
        """Show the winner and its mean."""
        scores = {key: record.get(key) for key in ("mean", "ci95")}
        parent.measure(flat("confirmed", scores), record["time_ms"])
        winner = record["winner"]["trial_id"]
        parent.tag("winner", winner)
        others = [record["default"]] if record.get("for_comparison") else []
        for one in (*record["top"], *others):
            found = shown.over_seeds(one)
            if one["trial_id"] == winner:
                parent.measure(
                    {f"confirmed_{k[6:]}": v for k, v in found.items()}, record["time_ms"]
                )
            for run in self.trials.values():
                of_one = run.tags.get("configuration") == one["trial_id"]
                if of_one and run.tags["stage"] in ("search", "confirm"):
                    run.measure(found, record["time_ms"])

    def on_fused(self, record: Record, parent: Run) -> None:
        """Show how the fusion compares with the winner on validation."""
        scores = {key: record.get(key) for key in ("winner", "fusion", "share_better")}
        parent.measure({f"fused_{key}": v for key, v in scores.items()}, record["time_ms"])
        parent.tag("fused", str(record["chosen"]).lower())

    def on_test(self, record: Record, parent: Run) -> None:
        """Show the test scores on the study and the final run."""
        self._tested = record
        parent.measure(flat("test", record["metrics"]), record["time_ms"])
        run = self.trials.get(record["trial_id"])
        if run is not None and run.tags["stage"] == "final":
            run.measure(shown.tested(record["metrics"]), record["time_ms"])

    def on_registered(self, record: Record, parent: Run) -> None:
        """Show the registered version."""
        version = f"{record['name']} version {record['version']}" if record["version"] else "no"
        alias = f" @{record['alias']}" if record["alias"] else ""
        parent.tag("registered", version + alias)

    def on_ensemble(self, record: Record, parent: Run) -> None:
        """Measure the votes of several models; the test record has those of the winner."""
        for row in record["rows"]:
            if (name := VOTES[row["name"]].metric) is not None:
                for split in ("val", "test"):
                    parent.measure(flat(f"{split}_{name}", row[split]), record["time_ms"])

    def on_leaky_twin(self, record: Record, parent: Run) -> None:
        """Show what the leaky twin scored, on its run and beside the test of the study."""
        if record["leaky"]:
            scores = flat("leaky_test", record["leaky"])
            for run in (self.trials[record["trial_id"]], parent):
                run.measure(scores, record["time_ms"])

    def on_study_end(self, record: Record, parent: Run) -> None:
        """End all runs."""
        for run in self.trials.values():
            if run.status == "RUNNING":
                run.tag("state", State.INTERRUPTED)
                run.set("KILLED", record["time_ms"])
        if (reason := record.get("reason", "")) or "error" in parent.tags:
            parent.tags["error"] = reason[: shown.MAX_TAG]  # empty once the study has gone on
        parent.tag("state", record["status"])
        parent.set(MLFLOW_STATUS[record["status"]], record["time_ms"])
