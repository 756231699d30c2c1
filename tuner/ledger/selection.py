"""Read a study's ledger: its trials, the leaderboard, the winner, and the summary for programs.

Pure functions over records; nothing here runs or writes anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.config import Experiment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tuner.ledger.journal import Record


# Below these a bootstrap over tracks says too little; rules of thumb, not theory.
FEW_TRACKS = 30
FEW_OF_A_CLASS = 5
WIDE_INTERVAL = 0.2


@dataclass
class TrialRow:
    """One trial as the ledger tells it.

    Attributes:
        trial_id: unique in the study.
        stage: search, confirm or final.
        ordinal: position in its stage.
        seed: of weights, order and augmentation.
        params: flat sampled values.
        recorded_config: The resolved experiment, as the ledger holds it.
        parent_trial: the search trial that a confirmation or the final run repeats.
        history: ``(epoch, metrics)`` in order.
        status: running, completed, stopped or failed.
        best: ``{"epoch", "metrics"}`` of the best epoch, None before the first.
        error: why it failed.
        note: what happened to it besides, as running out of memory once.
    """

    trial_id: str
    stage: str
    ordinal: int
    seed: int
    params: dict[str, Any]
    recorded_config: dict[str, Any]
    parent_trial: str | None
    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    status: str = "running"
    best: dict[str, Any] | None = None
    error: str | None = None
    note: str | None = None

    @cached_property
    def experiment(self) -> Experiment:
        """The resolved experiment; read when asked for, since it takes 0.1 ms a trial."""
        return Experiment.model_validate(self.recorded_config)

    def value(self, metric: str) -> float | None:
        """The metric at the best epoch; None for a trial that failed or has not ended."""
        if self.status not in ("completed", "stopped") or self.best is None:
            return None
        return float(self.best["metrics"][metric])


def trial_rows(records: Iterable[Record]) -> dict[str, TrialRow]:
    """All trials by id, in the order of their start."""
    rows: dict[str, TrialRow] = {}
    for record in records:
        if record["kind"] == "trial":
            keys = ("trial_id", "stage", "ordinal", "seed", "params", "parent_trial")
            rows[record["trial_id"]] = TrialRow(
                **{key: record[key] for key in keys}, recorded_config=record["config"]
            )
        elif record["kind"] == "epoch":
            row = rows[record["trial_id"]]
            row.history.append((record["epoch"], record["metrics"]))
        elif record["kind"] == "trial_end":
            row = rows[record["trial_id"]]
            row.status, row.best = record["status"], record["best"]
            row.error, row.note = record["error"], record.get("note")
    return rows


def leaderboard(rows: Iterable[TrialRow], metric: str, maximise: bool) -> list[TrialRow]:
    """Search trials with a value, best first.

    Of equal ones, that with the smaller validation loss; then in the order they were proposed.
    """
    ranked = [row for row in rows if row.stage == "search" and row.value(metric) is not None]
    return sorted(ranked, key=lambda row: (*_merit(row, metric, maximise), row.ordinal))


def _merit(row: TrialRow, metric: str, maximise: bool) -> tuple[float, float]:
    """What trials are ranked by, smaller is better: with few tracks many values are equal."""
    value = row.value(metric)
    assert value is not None
    assert row.best is not None
    return (-value if maximise else value), row.best["metrics"].get("val_loss", 0.0)


@dataclass(frozen=True)
class Candidate:
    """A configuration and its confirmation runs."""

    trial_id: str
    runs: tuple[TrialRow, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the random seeds."""
        return float(np.mean(self.values))


def candidates(rows: Iterable[TrialRow], metric: str, maximise: bool) -> list[Candidate]:
    """Configurations with at least one confirmation run that ended well, best mean first."""
    runs: dict[str, list[TrialRow]] = {}
    for row in rows:
        if row.stage == "confirm" and row.parent_trial and row.value(metric) is not None:
            runs.setdefault(row.parent_trial, []).append(row)
    found = [
        Candidate(
            name, tuple(group), tuple(v for r in group if (v := r.value(metric)) is not None)
        )
        for name, group in runs.items()
    ]

    def merit(one: Candidate) -> tuple[float, float]:
        each = [_merit(row, metric, maximise) for row in one.runs]
        value, loss = np.mean(each, axis=0)
        return float(value), float(loss)

    return sorted(found, key=merit)


def best_run(candidate: Candidate, metric: str, maximise: bool) -> TrialRow:
    """The confirmation run whose weights are taken: the best on validation."""
    return min(candidate.runs, key=lambda row: _merit(row, metric, maximise))


def counts(rows: Iterable[TrialRow]) -> dict[str, int]:
    """Search and confirmation trials by how they ended."""
    ended = [row.status for row in rows if row.stage != "final"]
    return {
        "total": len(ended),
        **{name: ended.count(name) for name in ("completed", "stopped", "failed")},
    }


def _last(records: Sequence[Record], kind: str) -> Record:
    return next((r for r in reversed(records) if r["kind"] == kind), {})


def _pick(record: Record, keys: str) -> dict[str, Any]:
    return {key: record.get(key) for key in keys.split()}


def doubts(records: Sequence[Record]) -> list[str]:
    """Reasons to doubt the score that the study's own numbers give."""
    found: list[str] = []
    features, test = _last(records, "features"), _last(records, "test")
    sets = features.get("features", [])
    leakage = worst_leakage(sets) if sets else None
    if leakage and not leakage["passed"]:
        found.append(
            f"The data is {leak_in_words(leakage)}. The scores do not tell how well other "
            "recordings are recognised; the model was not registered."
        )
    if leakage and leakage["label_conflicts"]:
        found.append(
            f"{leakage['label_conflicts']} pairs of copies of one recording are listed with "
            "different classes, so no model can get all of them right."
        )
    if test:
        found += _doubts_of_test(test)
    if _last(records, "confirmed").get("seeds", 2) < 2:
        found.append(
            "The winner was trained again with one other random seed only, so how far its score "
            "varies from seed to seed is not known (confirm.seeds)."
        )
    return found


def _doubts_of_test(test: Record) -> list[str]:
    found: list[str] = []
    low, high = test["metrics"]["ci95"]
    tracks = test["metrics"]["tracks"]
    counts = np.asarray(test["confusion"])
    if tracks < FEW_TRACKS or counts.sum(1).min() < FEW_OF_A_CLASS:
        found.append(
            f"{tracks} test tracks, {counts.sum(1).min()} of the rarest class, are few: whatever "
            "the interval says, a few other tracks would give another score."
        )
    elif high - low > WIDE_INTERVAL:
        found.append(
            f"The interval of the test score is {high - low:.2f} wide: "
            f"{tracks} test tracks are few."
        )
    if is_guessing(test):
        found.append(
            f"No better than guessing: always answering with the commonest class would be right "
            f"for {_commonest(test):.0%} of the test tracks, the model is for "
            f"{test['metrics']['accuracy']:.0%}."
        )
    return found


def _commonest(test: Record) -> float:
    """Share of the test tracks that are of the commonest class."""
    counts = np.asarray(test["confusion"])
    return float(counts.sum(1).max() / counts.sum())


def is_guessing(test: Record) -> bool:
    """Whether one answer to all test tracks would have been right as often as the model."""
    return bool(test["metrics"]["accuracy"] <= _commonest(test))


def worst_leakage(sets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The audit over all feature sets: the largest counts; passed only if each one is."""
    audits = [one["leakage"] for one in sets]
    counted = (
        "groups_shared", "exact_duplicates_shared", "near_duplicates_shared", "label_conflicts",
        "dropped",
    )  # fmt: skip
    worst: dict[str, Any] = {name: max(a.get(name, 0) for a in audits) for name in counted}
    clip_split = any(audit.get("clip_split", False) for audit in audits)
    passed = all(audit["passed"] for audit in audits)
    return {**worst, "clip_split": clip_split, "passed": passed}


def leak_in_words(leakage: Mapping[str, Any]) -> str:
    """What an audit found; an alarm unless it passed."""
    if leakage["passed"]:
        return "passed"
    if leakage["clip_split"]:
        return "LEAKY: clips of one recording are on several sides (data.split is clip)"
    found = [
        f"{leakage[key]} {one if leakage[key] == 1 else many}"
        for key, one, many in (
            ("groups_shared", "group", "groups"),
            ("exact_duplicates_shared", "pair of equal tracks", "pairs of equal tracks"),
            ("near_duplicates_shared", "pair of near-duplicates", "pairs of near-duplicates"),
        )
        if leakage[key]
    ]
    return f"LEAKY: {', '.join(found)} on two sides of the split"


def _confirm(confirmed: Record, rows: Mapping[str, TrialRow], test: Record) -> dict[str, Any]:
    """The confirmation, and whether the tested model is a final fit that followed it."""
    tested = rows.get(test.get("trial_id", ""))
    refit = tested is not None and tested.stage == "final"
    return {**_pick(confirmed, "top seeds mean ci95"), "refit": refit}


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """The study in the keys that ``tuner.run --json`` promises, but those of the tracker."""
    rows = trial_rows(records)
    study, features = _last(records, "study"), _last(records, "features")
    search = study["config"]["search"]
    metric, maximise = search["metric"], search["mode"] == "max"
    confirmed, test = _last(records, "confirmed"), _last(records, "test")
    ranked = leaderboard(rows.values(), metric, maximise)
    winner = rows.get(confirmed["winner"]["trial_id"]) if confirmed else next(iter(ranked), None)
    best: dict[str, Any] | None = None
    if winner is not None and winner.best is not None:
        reached = winner.best["metrics"]
        best = {
            "trial_id": winner.trial_id,
            "config": winner.recorded_config,
            "params": winner.params,
            "val": {name: reached[f"val_{name}"] for name in ("f1_macro", "accuracy")},
        }
    sets = features.get("features", [])
    return {
        "study": study["study"],
        "reference": study["config"].get("reference"),
        "features": [_pick(one, "fingerprint path tracks clips") for one in sets],
        "trials": counts(rows.values()),
        "best": best,
        "confirm": _confirm(confirmed, rows, test) if confirmed else None,
        "test": {**test["metrics"], "classes": test.get("classes", [])} if test else None,
        "ensembles": _last(records, "ensemble").get("rows", []),
        "leakage": worst_leakage(sets) if sets else None,
        "registered": _pick(_last(records, "registered"), "name version alias reason"),
        "seconds": _last(records, "study_end").get("seconds"),
    }
