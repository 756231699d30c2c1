"""Reasons to trust or doubt a study's score: the test's own numbers and the leakage audit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from pipelines.errors import UserError
from pipelines.splits.leakage import Leakage
from tuner.training import metrics, uncertainty

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pipelines.features.networks import Provenance
    from tuner.ledger.journal import Record
    from tuner.ledger.trial_rows import TrialRow

MAX_EXAMPLES = 20  # of leaks


class ClassRow(NamedTuple):
    """Test scores of one class, counted in tracks."""

    label: str
    precision: float
    recall: float
    f1: float
    tracks: int
    mistaken_for: str


@dataclass(frozen=True)
class Evaluation:
    """The winner's single evaluation on the test split.

    Attributes:
        metrics: All scores by name, with ``ci95``, ``accuracy_ci95`` and ``tracks``.
        labels: Class names.
        confusion: Tracks by true and predicted class, ``[k, k]``.
        clip_confusion: The same for clips; None for a fusion, and in ledgers of early versions.
        reliability: ``before`` and ``after`` calibration, each with ``ece`` and ``bins`` of
            tracks by confidence; empty in ledgers of early versions.
    """

    metrics: Mapping[str, Any]
    labels: list[str]
    confusion: NDArray[np.int64]
    clip_confusion: NDArray[np.int64] | None
    reliability: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Record) -> Self:
        """Read the evaluation from its ledger record."""
        clips = record.get("clip_confusion")
        counts = np.array(record["confusion"])
        return cls(
            record["metrics"], record["labels"], counts,
            None if clips is None else np.array(clips), record.get("reliability", {}),
        )  # fmt: skip

    @property
    def classes(self) -> Iterator[ClassRow]:
        """Scores of each class, and the class it is most often mistaken for."""
        scores = (values.tolist() for values in metrics.per_class(self.confusion))
        wrong = self.confusion - np.diag(np.diag(self.confusion))
        for i, (precision, recall, f1) in enumerate(zip(*scores, strict=True)):
            worst = int(wrong[i].argmax())
            mistaken = f"{self.labels[worst]} ({wrong[i, worst]})" if wrong[i, worst] else ""
            tracks = int(self.confusion[i].sum())
            yield ClassRow(self.labels[i], precision, recall, f1, tracks, mistaken)

    def classes_to_json(self) -> list[dict[str, Any]]:
        """Return the scores of each class as the ledger and ``tuner.run --json`` hold them."""
        keys = ("label", "precision", "recall", "f1", "tracks")
        return [{key: getattr(row, key) for key in keys} for row in self.classes]

    @property
    def commonest_share(self) -> float:
        """Share of the test tracks that belong to the most common class."""
        return float(self.confusion.sum(1).max() / self.confusion.sum())

    @property
    def lowest_accuracy(self) -> float:
        """Lower end of the 95 % interval of the accuracy."""
        return uncertainty.exact_interval(self.metrics["accuracy"], self.metrics["tracks"])[0]

    @property
    def is_guessing(self) -> bool:
        """True if neither accuracy nor macro F1 is above a guess at the low end of its interval.

        The best guess for accuracy is the most common class, whose share is at least ``1 / k``.
        Macro F1 counts rare classes as much as common ones; any guess has about ``1 / k`` or less.
        """
        low = self.metrics["ci95"][0]
        return self.lowest_accuracy <= self.commonest_share and low <= 1 / len(self.labels)


def clips_in_words(clips: Mapping[str, int], num_folds: int) -> str:
    """Count the clips of a feature set by split; with folds, train and val are no fixed parts."""
    if not num_folds:
        return ", ".join(f"{number} {split}" for split, number in clips.items())
    return f"{clips['train'] + clips['val']} in {num_folds} folds, {clips['test']} test"


def interval_in_words(ends: Sequence[float]) -> str:
    """Describe the 95 % interval of a score."""
    return f"95 % interval over tracks {ends[0]:.3f} to {ends[1]:.3f}"


def scores_in_words(scores: Mapping[str, Any], *, with_accuracy: bool = False) -> str:
    """Describe macro F1 with its interval, and accuracy, with its own if that is asked for."""
    ends = f" ({interval_in_words(scores['accuracy_ci95'])})" if with_accuracy else ""
    number = scores["tracks"]
    return (
        f"macro F1 {scores['f1_macro']:.3f} ({interval_in_words(scores['ci95'])}), accuracy "
        f"{scores['accuracy']:.3f}{ends}, {number} track{'' if number == 1 else 's'}"
    )


def worst_leakage(sets: Sequence[Mapping[str, Any]]) -> Leakage:
    """Return the largest count over all feature sets; passed only if each set passed."""
    audits = [Leakage(**one["leakage"]) for one in sets]
    counted = (
        "groups_shared", "near_duplicates_shared", "exact_duplicates_shared", "label_conflicts",
        "dropped", "dropped_val",
    )  # fmt: skip
    worst: dict[str, Any] = {name: max(getattr(a, name) for a in audits) for name in counted}
    examples = dict.fromkeys((kind, text) for audit in audits for kind, text in audit.examples)
    return Leakage(
        **worst,
        passed=all(audit.passed for audit in audits),
        clip_split=any(audit.clip_split for audit in audits),
        examples=tuple(examples)[:MAX_EXAMPLES],
    )


def leak_in_words(leakage: Leakage) -> str:
    """Describe an audit: ``passed``, or an alarm that counts what leaks."""
    if leakage.passed:
        return "passed"
    if leakage.clip_split:
        return "LEAKY: clips of one recording are in several splits (data.split is clip)"
    counted = (
        (leakage.groups_shared, "group", "groups"),
        (leakage.exact_duplicates_shared, "pair of equal tracks", "pairs of equal tracks"),
        (leakage.near_duplicates_shared, "pair of near-duplicates", "pairs of near-duplicates"),
    )
    found = [f"{number} {one if number == 1 else many}" for number, one, many in counted if number]
    return f"LEAKY: {', '.join(found)} in more than one split"


def provenance_of(rows: Sequence[TrialRow]) -> tuple[Provenance, ...]:
    """Return what the pretrained parts of trials were trained on, each once."""
    found: dict[str, Provenance] = {}
    for row in rows:
        try:
            found |= {one.name: one for one in row.experiment.pretrained}
        except UserError:  # of an earlier version, or its file of weights is gone
            continue
    return tuple(found.values())
