"""The result of a study, computed once from its ledger for everything that displays it."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tuner.ledger import selection
from tuner.ledger.baselines import Baseline
from tuner.ledger.confirmation import Confirmation
from tuner.ledger.explanation import Explanation
from tuner.ledger.extension import changed_space, looks_at_test, newest_of
from tuner.ledger.journal import state_of
from tuner.ledger.leaky_twin import LeakyTwin
from tuner.ledger.notes import notes
from tuner.ledger.pace import Pace
from tuner.ledger.pareto import front
from tuner.ledger.spent import spent_seconds
from tuner.ledger.trial_rows import TrialRows
from tuner.ledger.trust import Evaluation, provenance_of, worst_leakage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipelines.features.networks import Provenance
    from pipelines.splits.leakage import Leakage
    from tuner.ledger.journal import Record
    from tuner.ledger.states import State
    from tuner.ledger.trial_rows import TrialRow

REGISTERED = ("name", "version", "alias", "reason")
FEATURE_SET_KEYS = ("fingerprint", "path", "tracks", "clips")


class Vote(NamedTuple):
    """One way to combine predictions after the winner is fixed.

    Attributes:
        title: Display name.
        metric: Its name in MLflow metrics; None for votes of the winner alone.
    """

    title: str
    metric: str | None = None


VOTES = {
    "winner_soft": Vote("winner, soft vote over clips"),
    "winner_hard": Vote("winner, hard vote over clips"),
    "top_k": Vote("soft vote of the confirmed models", "ensemble"),
    "fusion": Vote("fusion, weights chosen on validation", "fusion"),
}


@dataclass(frozen=True)
class Registration:
    """Outcome of registering a model; without a version it was not registered."""

    name: str | None = None
    version: int | None = None
    alias: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Summary:
    """A study's result so far; parts are None until their stage has finished.

    Attributes:
        study: Name of the study.
        ranking: Order of the trials.
        reference: Scores that others reported on this data.
        config: The template of all trials, as recorded.
        settings: Text of each setting or range, by dotted path.
        choices: Values chosen for settings that the space file left ``auto``, with reasons.
        remarks: Warnings about settings that do not fit the data.
        status: State of the study.
        time_ms: Time of the newest record.
        features: The study's feature sets: files by verdict, and clips by split.
        leakage: The worst of their audits.
        pace: The trials that fit the budget; None without one.
        counts: Search and confirmation trials by how they ended, and in total.
        trials: Search trials in the order they started.
        repeats: Trials of other stages in the order they started.
        ranked: Search trials that have a value, best first.
        winner: The confirmed configuration, or the best one so far; None if no trial succeeded.
        provenance: What the pretrained parts of the tested model were trained on.
        layout: Layout of the data set; empty in ledgers of early versions.
        baselines: Models that cost nothing, on the same tracks.
        confirm: The confirmation.
        test: The evaluation on the test split.
        votes: Scores of the votes in `VOTES`, as recorded.
        problems: Reasons why a vote is missing.
        registered: Outcome of the registration.
        leaky_twin: The model's leaky twin; None unless it was asked for.
        explanation: What the study recorded besides its scores.
        seconds: Time spent in all runs of the study, by stage and in total.
        looks: Number of models that have been scored on the test split.
        lost: A line for each folder of the data that is no class, because it has no audio.
        notes: What was asked or done besides: extensions, warm start, how the search ended.
    """

    study: str
    ranking: selection.Ranking
    reference: str | None
    config: Mapping[str, Any]
    settings: Mapping[str, str]
    choices: list[dict[str, str]]
    remarks: list[str]
    status: State
    time_ms: int
    features: list[dict[str, Any]]
    leakage: Leakage | None
    pace: Pace | None
    counts: dict[str, int]
    trials: list[TrialRow]
    repeats: list[TrialRow]
    ranked: list[TrialRow]
    winner: TrialRow | None
    provenance: tuple[Provenance, ...]
    layout: str
    baselines: list[Baseline]
    confirm: Confirmation | None
    test: Evaluation | None
    votes: list[dict[str, Any]]
    problems: list[str]
    registered: Registration
    leaky_twin: LeakyTwin | None
    explanation: Explanation
    seconds: dict[str, float]
    looks: int = 1
    notes: tuple[tuple[str, str], ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def counts_in_words(self) -> str:
        """How the trials ended."""
        return selection.counts_in_words(self.counts)

    @property
    def metric(self) -> str:
        """The metric that trials are ranked by."""
        return self.ranking.metric

    @property
    def maximise(self) -> bool:
        """True if larger is better."""
        return self.ranking.maximise

    @property
    def runner_up(self) -> TrialRow | None:
        """The best search trial besides the winner."""
        return next((row for row in self.ranked if row is not self.winner), None)

    @property
    def median(self) -> float:
        """Median value of the ranked trials."""
        return statistics.median(self.value(row) for row in self.ranked)

    def value(self, trial: TrialRow) -> float:
        """Return a ranked trial's value of the study's metric."""
        return trial.reached(self.metric)

    @property
    def best_scores(self) -> dict[str, float] | None:
        """The winner's validation scores in the search."""
        if self.winner is None or self.winner.best is None:
            return None
        metrics = self.winner.best["metrics"]
        return {name: metrics[f"val_{name}"] for name in ("f1_macro", "accuracy")}

    @property
    def tested_val(self) -> Mapping[str, float] | None:
        """Validation scores of what was chosen: the winner's in the search, or the fusion's."""
        fusion = self.confirm and self.confirm.fusion
        return fusion.val if fusion and fusion.chosen else self.best_scores

    @property
    def is_refit(self) -> bool:
        """True if the tested model is a final fit."""
        return self.confirm is not None and self.confirm.refit

    @property
    def is_fused(self) -> bool:
        """True if a fusion takes the place of the winner."""
        return bool(self.confirm and self.confirm.fusion and self.confirm.fusion.chosen)

    @property
    def tested(self) -> str:
        """The model that is tested and registered, in words."""
        if self.is_fused:
            return "fusion"
        return "final fit of the confirmed winner" if self.is_refit else "confirmed winner"

    @property
    def is_complete(self) -> bool:
        """True if every file and folder was used and every trial succeeded."""
        # Tracks that were dropped because data.leaks asks for it do not count.
        dropped = self.leakage.dropped if self.leakage else 0
        skipped = any(one["tracks"]["quarantined"] > dropped for one in self.features)
        return not skipped and not self.lost and not self.counts["failed"]

    @property
    def model_address(self) -> str | None:
        """Address of the registered model for prediction; None if it was not registered."""
        if not self.registered.version:
            return None
        alias, version = self.registered.alias, self.registered.version
        return f"models:/{self.registered.name}" + (f"@{alias}" if alias else f"/{version}")

    @property
    def pretrained(self) -> list[str]:
        """What the pretrained parts of the tested model were trained on, each in a sentence."""
        return [f"{one.name} was trained on {one.trained_on}" for one in self.provenance]

    def to_json(self) -> dict[str, Any]:
        """Return the keys of ``tuner.run --json``, except those that the tracker knows."""
        confirm, best = self.confirm, None
        if (winner := self.winner) and (scores := self.best_scores):
            best = {
                "trial_id": winner.trial_id,
                "config": winner.recorded_config,
                "params": winner.params,
                "val": scores,
            }
        audit = (
            "groups_shared", "exact_duplicates_shared", "near_duplicates_shared",
            "label_conflicts", "dropped", "clip_split", "passed",
        )  # fmt: skip
        return {
            "study": self.study,
            "reference": self.reference,
            "choices": self.choices,
            "features": self.features,
            "trials": self.counts,
            "best": best,
            "front": [one.to_json() for one in front(self.ranked, self.ranking)],
            "baselines": [one.to_json() for one in self.baselines],
            "confirm": confirm and confirm.to_json(),
            "test": self.test and {**self.test.metrics, "classes": self.test.classes_to_json()},
            "ensembles": self.votes,
            "leakage": self.leakage and {key: getattr(self.leakage, key) for key in audit},
            "registered": dataclasses.asdict(self.registered),
            "leaky_twin": self.leaky_twin and self.leaky_twin.to_json(),
            "seconds": self.seconds,
        }  # fmt: skip


def summarise(records: Sequence[Record]) -> Summary:
    """Compute the result of a study from its ledger so far."""
    newest, rows = newest_of(records), TrialRows(records)
    began = changed_space(newest)
    config = began["config"]
    search, known = config["search"], newest.get("baselines", {})
    ranking = selection.Ranking.of(search["metric"], search["mode"], known.get("val_tracks"))
    trials = [row for row in rows.values() if row.stage == "search"]
    confirm = Confirmation.of(newest)
    ranked = selection.leaderboard(trials, ranking)
    winner = next(iter(ranked), None)
    if confirm:  # a default configuration that no trial of the search had is a run of its own
        winner = rows.get(confirm.trial_id) or rows.get(confirm.run_trial_id)
    fused = newest.get("fused", {})
    members = [rows[one["trial_id"]] for one in fused.get("members", []) if fused["chosen"]]
    sets = newest.get("features", {}).get("features", [])
    ensemble, registered = newest.get("ensemble", {}), newest.get("registered", {})
    return Summary(
        study=began["study"],
        ranking=ranking,
        reference=config.get("reference"),
        config=config,
        settings=began.get("settings", {}),
        choices=began.get("choices", []),
        remarks=began.get("remarks", []),
        status=state_of(records),
        time_ms=records[-1]["time_ms"],
        features=[{key: one[key] for key in FEATURE_SET_KEYS} for one in sets],
        lost=tuple(dict.fromkeys(line for one in sets for line in one.get("lost", ()))),
        leakage=worst_leakage(sets) if sets else None,
        pace=Pace.of(newest["pace"]) if "pace" in newest else None,
        counts=selection.counts(rows.values()),
        trials=trials,
        repeats=[row for row in rows.values() if row.stage != "search"],
        ranked=ranked,
        layout=sets[0].get("layout", "") if sets else "",
        winner=winner,
        provenance=provenance_of(members or [winner] if winner else []),
        baselines=Baseline.all_of(newest.get("baselines")),
        confirm=confirm,
        test=Evaluation.of(newest["test"]) if "test" in newest else None,
        votes=ensemble.get("rows", []),
        problems=ensemble.get("problems", []),
        registered=Registration(**{key: registered[key] for key in REGISTERED if registered}),
        leaky_twin=LeakyTwin.of(newest["leaky_twin"]) if "leaky_twin" in newest else None,
        explanation=Explanation.of(newest.get("explained")),
        seconds=spent_seconds(records),
        looks=looks_at_test(records),
        notes=tuple(notes(records)),
    )
