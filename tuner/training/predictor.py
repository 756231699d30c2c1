"""Trained models as prediction uses them: from the samples of a track to the votes for classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.features.extract import Extracted, as_stored, extract
from tuner.training import metrics

if TYPE_CHECKING:
    from tuner.models.layers import Classifier
    from tuner.training.bundle import Bundle
    from tuner.training.profile import Profile

VoteKind: TypeAlias = Literal["soft", "hard"]
Sounds: TypeAlias = Mapping[int, NDArray[np.float32]]
"""The samples ``float32[T]`` of a track by their rate, in Hz."""


@dataclass(frozen=True)
class Clips:
    """Predictions for some clips of a track, in their order.

    Attributes:
        probabilities: Class probabilities, float32[n, k].
        start_s: Start of each clip in the track, in seconds, float64[n].
        end_s: End of each clip; the end of the track for a clip that is padded or the whole track.
    """

    probabilities: NDArray[np.float32]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]


@dataclass(frozen=True)
class Votes:
    """Votes of the clips of one track.

    Attributes:
        shares: Share of each class ``[k]``: the mean of the clips' probabilities, or with a hard
            vote the share of clips that it wins.
        mean: Mean of the clips' probabilities ``[k]``, which breaks ties.
        num_clips: Number of clips that voted, over all members of a fusion.
    """

    shares: NDArray[np.float64]
    mean: NDArray[np.float64]
    num_clips: int


@dataclass(frozen=True)
class Predictor:
    """A trained model: cut, transform, classify and vote, with the functions used in training.

    Attributes:
        bundle: Description of the model.
        classifier: Its classifier, in evaluation mode.
        embedding: Pretrained networks that make its features; None without any.
        profile: Description of the tracks that it learned from; None in earlier versions.
    """

    bundle: Bundle
    classifier: Classifier
    embedding: torch.nn.Module | None = None
    profile: Profile | None = None

    @property
    def origin(self) -> Mapping[str, Any]:
        """Its provenance, for users."""
        return self.bundle.origin

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names."""
        return self.bundle.labels

    @property
    def sample_rates(self) -> tuple[int, ...]:
        """Rates at which it needs a track, in Hz."""
        return (self.bundle.feature.sample_rate,)

    @property
    def members(self) -> tuple[Predictor, ...]:
        """The model itself, as the only member of a fusion."""
        return (self,)

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the members."""
        return (1.0,)

    def extracted(self, sounds: Sounds) -> Extracted:
        """Cut a track, or a section of one, and return the features of its clips."""
        bundle = self.bundle
        samples = sounds[bundle.feature.sample_rate]
        if bundle.from_stored_samples:
            samples = as_stored(samples)
        return extract(samples, bundle.clip, bundle.feature, self.embedding)

    def classify(self, features: NDArray[np.float16]) -> NDArray[np.float32]:
        """Return the class probabilities ``[n, k]`` of clips from their features ``[n, f, m]``."""
        x, bundle = torch.from_numpy(features).float(), self.bundle
        found = metrics.clip_probabilities(self.classifier, x, bundle.crops, bundle.temperature)
        return np.asarray(found.numpy())

    def clips(
        self,
        sounds: Sounds,
        start_s: float = 0.0,
        on_features: Callable[[NDArray[np.float16]], object] = lambda _: None,
    ) -> Clips:
        """Cut and classify a track, or a section of one that starts at ``start_s``."""
        made, feature = self.extracted(sounds), self.bundle.feature
        on_features(made.features)
        length_s = len(sounds[feature.sample_rate]) / feature.sample_rate
        end_s = np.full(len(made.features), length_s)
        if feature.row.column != "track":
            end_s = np.minimum(end_s, made.start_s + self.bundle.clip.clip_seconds)
        return Clips(self.classify(made.features), made.start_s + start_s, end_s + start_s)

    def clip_probabilities(self, sounds: Sounds) -> NDArray[np.float32]:
        """Return the class probabilities ``[n, k]`` of the clips of a track."""
        return self.clips(sounds).probabilities


@dataclass(frozen=True)
class FusedPredictor:
    """Several trained models in the place of one: the mean of their votes for a track.

    Attributes:
        members: The models; all know the same classes in the same order.
        weights: Their weights, with a sum of 1.
        origin: Its provenance, for users.
    """

    members: tuple[Predictor, ...]
    weights: tuple[float, ...]
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names."""
        return self.members[0].labels

    @property
    def sample_rates(self) -> tuple[int, ...]:
        """Rates at which it needs a track, in Hz."""
        return tuple(sorted({rate for one in self.members for rate in one.sample_rates}))


def joined(parts: Sequence[Clips]) -> Clips:
    """Join the clips of the sections of a track."""
    fields = ("probabilities", "start_s", "end_s")
    return Clips(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def count_votes(clips: Sequence[Clips], weights: Sequence[float], vote: VoteKind) -> Votes:
    """Return the votes for a track, from the clips and the weight of each member."""
    count = metrics.soft_votes if vote == "soft" else metrics.hard_votes
    each = [one.probabilities for one in clips]
    return Votes(
        metrics.weighted_mean([count(one) for one in each], weights),
        metrics.weighted_mean([one.mean(0, dtype=np.float64) for one in each], weights),
        sum(map(len, each)),
    )


TrainedModel: TypeAlias = Predictor | FusedPredictor
"""Everything that a registered version can be."""
