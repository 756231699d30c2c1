"""The evaluation of a model on labelled audio: its figures, and sentences about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import UserError
from pipelines.plain_text import escaped
from tuner.errors import UsageError
from tuner.evaluation.distance import Distance, distance_of
from tuner.evaluation.measuring import MeasuredTrack, Unreadable, predict_and_measure
from tuner.ledger.trust import Evaluation, scores_in_words
from tuner.training import metrics, uncertainty
from tuner.training.calibration import Reliability, reliability

if TYPE_CHECKING:
    from pipelines.sources.tracks import Catalog
    from tuner.training.predictor import TrainedModel

SHOWN = 5  # unreadable files


@dataclass(frozen=True)
class Result:
    """A model on labelled tracks.

    Attributes:
        listed: Number of tracks in the data.
        unreadable: Tracks that could not be judged.
        unknown: Tracks of each class that the model does not know; they count in no figure.
        absent: Classes of the model without a track.
        seen: Tracks that the study of the model had, by split: train, val or test; ``train``
            means that the model learned from them.
        evaluation: All tracks of known classes.
        fresh: Those that the model did not learn from; None if these are all, or none.
        reliability: Reliability of the probabilities on the tracks of known classes.
        inside: Accuracy on tracks that sound like the training tracks, and on the others; None
            if one of them has no tracks.
        distance: How far the tracks of known classes are from the training tracks; None if the
            model is of a version that does not say.
        origin: Provenance of the model.
    """

    listed: int
    unreadable: tuple[Unreadable, ...]
    unknown: Mapping[str, int]
    absent: tuple[str, ...]
    seen: Mapping[str, int]
    evaluation: Evaluation
    fresh: Evaluation | None
    reliability: Reliability
    inside: tuple[float, float] | None
    distance: Distance | None
    origin: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the object of ``tuner.evaluate --json``."""
        return {
            "tracks": {
                "listed": self.listed,
                "judged": self.evaluation.metrics["tracks"],
                "unreadable": len(self.unreadable),
                "unknown_class": sum(self.unknown.values()),
            },
            **{name: value for name, value in self.evaluation.metrics.items() if name != "tracks"},
            "labels": self.evaluation.labels,
            "classes": self.evaluation.classes_to_json(),
            "confusion": self.evaluation.confusion.tolist(),
            "reliability": asdict(self.reliability),
            "unknown_classes": dict(self.unknown),
            "absent_classes": list(self.absent),
            "seen": dict(self.seen),
            "fresh": self.fresh and dict(self.fresh.metrics),
            "accuracy_inside": self.inside and self.inside[0],
            "accuracy_outside": self.inside and self.inside[1],
            "distance": self.distance and self.distance.to_json(),
            "unreadable": [asdict(one) for one in self.unreadable],
            "warnings": list(self.warnings()),
        }

    def warnings(self) -> Iterator[str]:
        """Say what must be known before the figures are believed."""
        judged = self.evaluation.metrics["tracks"]
        yield from self._seen_before(judged)
        if self.unknown:
            names = ", ".join(f"{name!r} ({count})" for name, count in self.unknown.items())
            yield (
                f"classes that the model does not know, whose tracks are in no score: {names}; "
                "--map THEIRS=OURS renames a class"
            )
            yield from _alike(self.unknown, self.evaluation.labels)
        if self.absent:
            names = ", ".join(map(repr, self.absent))
            wrong = self._predicted(self.absent)
            yield f"no track is of the model's classes {names}" + (
                f"; {wrong} are taken for one of them, and macro F1 counts these classes as 0"
                if wrong
                else ""
            )
        if self.evaluation.is_guessing:
            yield "on these tracks the model cannot be told from guessing"
        low, high = self.evaluation.metrics["accuracy_ci95"]
        if not low <= self.confidence <= high:
            how = "overconfident" if self.confidence > high else "underconfident"
            yield (
                f"the model is {how}: its mean confidence is {self.confidence:.2f}, its accuracy "
                f"{self.evaluation.metrics['accuracy']:.2f}"
            )
        for one in self.unreadable[:SHOWN]:
            yield f"not judged: {one.path}: {one.reason}"
        if (more := len(self.unreadable) - SHOWN) > 0:
            yield f"not judged: {more} more, which --json lists"

    def _seen_before(self, judged: int) -> Iterator[str]:
        if learned := self.seen.get("train"):
            rest = "these scores cannot be trusted"
            if self.fresh:
                rest = f"on the others, {scores_in_words(self.fresh.metrics, with_accuracy=True)}"
            yield f"the model learned from {learned} of these {judged} tracks: {rest}"
        if chosen := self.seen.get("val"):
            yield f"the model was chosen on {chosen} of these tracks: these scores are optimistic"
        if tested := self.seen.get("test"):
            yield f"{tested} of these tracks are the test tracks of the model's own study"

    def findings(self) -> Iterator[str]:
        """Say how far the audio is from the training data, and what that did to the score."""
        if self.distance is None:
            yield "the model is of an earlier version, which does not describe its training tracks"
            return
        yield from self.distance.sentences()
        if self.inside and self.distance.outside is not None:
            num_out = int(self.distance.outside.sum())
            num_in = len(self.distance.outside) - num_out
            yield (
                f"accuracy is {self.inside[0]:.2f} on the {num_in} that sound like the training "
                f"tracks, {self.inside[1]:.2f} on the {num_out} others"
            )
        yield from self._own_test()

    def _own_test(self) -> Iterator[str]:
        """Compare the accuracy with that of the model's own test."""
        test = self.origin.get("test", {})
        if "accuracy" not in test or "accuracy_ci95" not in test:
            return
        (low, high), own = test["accuracy_ci95"], self.evaluation.metrics["accuracy_ci95"]
        verdict = "the intervals overlap"
        if own[1] < low:
            verdict = "clearly lower here"
        elif own[0] > high:
            verdict = "clearly higher here"
        yield (
            f"accuracy was {test['accuracy']:.2f} ({low:.2f} to {high:.2f}) on the test tracks "
            f"of the model's own study: {verdict}"
        )

    @property
    def confidence(self) -> float:
        """Mean probability of the predicted class."""
        tracks = sum(one["tracks"] for one in self.reliability.bins)
        return sum(one["tracks"] * one["confidence"] for one in self.reliability.bins) / tracks

    def headline(self) -> str:
        """Return the scores in a sentence, beside those of a guess."""
        share, labels = self.evaluation.commonest_share, self.evaluation.labels
        commonest = labels[int(self.evaluation.confusion.sum(1).argmax())]
        return (
            f"{scores_in_words(self.evaluation.metrics, with_accuracy=True)}; always saying "
            f"{commonest!r} would be right for {share:.2f} of them"
        )

    def _predicted(self, names: Sequence[str]) -> int:
        columns = [self.evaluation.labels.index(name) for name in names]
        return int(self.evaluation.confusion[:, columns].sum())


def evaluate(
    model: TrainedModel,
    catalog: Catalog,
    names: Mapping[str, str],
    progress: Callable[[int, int], None],
) -> Result:
    """Judge a model on labelled tracks.

    Args:
        model: The model.
        catalog: The tracks.
        names: Other names of its classes, as the data has them.
        progress: Called with the number of tracks done and their total.

    Raises:
        UsageError: The model knows no class of the data.
        UserError: No track of these can be read.
    """
    labels = list(model.labels)
    if wrong := sorted(set(names.values()) - set(labels)):
        raise UsageError(f"--map: the model has no class {wrong[0]!r}; it has {_listed(labels)}")
    own = {escaped(track.label) for track in catalog.tracks} - {""}
    if absent := sorted(names.keys() - own):
        raise UsageError(
            f"--map: the data has no class {absent[0]!r}; it has {_listed(sorted(own))}"
        )
    given = {names.get(label, label) for label in own}
    if not given & set(labels):  # said before hours of audio are decoded
        hints = "".join(f"; {hint}" for hint in _alike(sorted(given), labels))
        raise UsageError(
            f"the model knows none of the classes {_listed(sorted(given))}; it knows "
            f"{_listed(labels)}{hints}; --map THEIRS=OURS renames a class"
        )
    found = list(predict_and_measure(model, catalog, progress))
    tracks = [_renamed(one, names) for one in found if isinstance(one, MeasuredTrack)]
    unreadable = tuple(one for one in found if isinstance(one, Unreadable))
    unknown = Counter(one.label for one in tracks if one.label not in labels)
    known = np.array([one.label in labels for one in tracks])
    if not known.any():
        first = f", for example {unreadable[0].path}: {unreadable[0].reason}" if unreadable else ""
        raise UserError(f"no track of a class that the model knows can be read{first}")
    judged = [one for one, is_known in zip(tracks, known, strict=True) if is_known]
    distance = distance_of(model, judged)
    truth = np.array([labels.index(one.label) for one in judged])
    soft = np.stack([one.soft for one in judged])
    hard = np.stack([one.hard for one in judged])
    first_member = model.members[0]
    profile = first_member.profile
    splits = profile.splits_of(one.pcm_digest for one in judged) if profile else []
    fresh = np.array([split != "train" for split in splits], bool)
    is_mixed = fresh.any() and not fresh.all()
    hit = soft.argmax(1) == truth
    outside = distance.outside if distance else None
    present = {one.label for one in judged}
    return Result(
        listed=len(catalog.tracks),
        unreadable=unreadable,
        unknown=dict(sorted(unknown.items())),
        absent=tuple(name for name in labels if name not in present),
        seen=Counter(split for split in splits if split),
        evaluation=_evaluation(labels, truth, soft, hard),
        fresh=_evaluation(labels, truth[fresh], soft[fresh], hard[fresh]) if is_mixed else None,
        reliability=reliability(soft, truth),
        inside=None
        if outside is None or outside.all() or not outside.any()
        else (float(hit[~outside].mean()), float(hit[outside].mean())),
        distance=distance,
        origin=model.origin,
    )


def _evaluation(labels: list[str], truth: Any, soft: Any, hard: Any) -> Evaluation:
    predicted, k = soft.argmax(1), len(labels)
    scores = {
        **metrics.track_scores(soft, hard, truth),
        **uncertainty.intervals(truth, predicted, k),
        "tracks": len(truth),
    }
    return Evaluation(scores, labels, metrics.confusion(truth, predicted, k), None)


def _renamed(one: MeasuredTrack, names: Mapping[str, str]) -> MeasuredTrack:
    return replace(one, label=names.get(one.label, one.label))


def _alike(unknown: Iterable[str], labels: Sequence[str]) -> Iterator[str]:
    """Yield a hint for each unknown class that differs from a known one in its spelling only."""

    def bare(name: str) -> str:
        return "".join(filter(str.isalnum, name.casefold()))

    known = {bare(name): name for name in labels}
    for name in unknown:
        if bare(name) in known:
            ours = known[bare(name)]
            yield f"{name!r} may be the model's {ours!r}: --map {f'{name}={ours}'!r}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
