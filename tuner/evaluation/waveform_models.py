"""Trained models as modules that ``torch.export`` accepts, from samples to probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch

from pipelines.features.extract import front_end
from pipelines.features.modules import Cut
from pipelines.features.resampling import Resampler
from tuner.training.metrics import clip_probabilities, weighted_mean
from tuner.training.predictor import FusedPredictor

if TYPE_CHECKING:
    from tuner.training.bundle import Bundle
    from tuner.training.predictor import Predictor, TrainedModel


class WaveformModel(torch.nn.Module):
    """Front end, classifier and mean over crops, for the clips or the tracks that a model takes.

    Args:
        predictor: The model.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        bundle = predictor.bundle
        self.front_end = front_end(bundle.feature, predictor.embedding)
        self.classifier = predictor.classifier
        self.crops = bundle.crops
        self.temperature = bundle.temperature
        self.rounds = bundle.from_stored_samples

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Map ``float32[n, l]`` at the bundle's rate to probabilities ``float32[n, k]``."""
        if self.rounds:
            largest = torch.finfo(torch.float16).max
            waveform = waveform.clamp(-largest, largest).half().float()  # as pipelines' as_stored
        # Features are stored as float16; the same rounding here gives the same numbers.
        features = self.front_end(waveform).half().float()
        return clip_probabilities(self.classifier, features, self.crops, self.temperature)


class TrackModel(torch.nn.Module):
    """A model that resamples whole tracks, cuts its own clips and averages over them.

    Args:
        predictor: The model.
        sample_rate: Rate of the tracks that the module takes, in Hz.

    Attributes:
        least: Samples of the shortest track.
    """

    def __init__(self, predictor: Predictor, sample_rate: int) -> None:
        super().__init__()
        feature, rate = predictor.bundle.feature, predictor.bundle.feature.sample_rate
        self.model = WaveformModel(predictor)
        self.resample = Resampler(sample_rate, rate) if rate != sample_rate else None
        takes_tracks = feature.row.column == "track"
        self.cut = None if takes_tracks else Cut(rate, predictor.bundle.clip)
        least = feature.n_fft if self.cut is None else self.cut.least
        self.least = ceil(least * sample_rate / rate)

    def forward(self, tracks: torch.Tensor) -> torch.Tensor:
        """Map tracks ``float32[n, t]`` to probabilities ``float32[n, k]``; t as ``least``."""
        samples = tracks if self.resample is None else self.resample(tracks)
        if self.cut is None:
            of_tracks: torch.Tensor = self.model(samples)
            return of_tracks
        clips = self.cut(samples)
        of_clips: torch.Tensor = self.model(clips.flatten(0, 1))
        return of_clips.reshape(*clips.shape[:2], -1).mean(1)


class FusedModel(torch.nn.Module):
    """The weighted mean of several modules that take the same clips or tracks."""

    def __init__(self, members: Sequence[torch.nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList(members)
        self.weights = weights

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Map ``float32[n, t]`` to the members' mean probabilities ``float32[n, k]``."""
        found = [one(waveform).double() for one in self.members]
        mean: torch.Tensor = weighted_mean(found, self.weights).float()
        return mean


@dataclass(frozen=True)
class Program:
    """A module with what it takes.

    Attributes:
        module: From samples ``float32[n, t]`` to probabilities ``float32[n, k]``.
        length: Samples of a clip; None if it takes whole tracks of any length.
        least: Samples of the shortest input.
        takes: Description of the input for users.
    """

    module: torch.nn.Module
    length: int | None
    least: int
    takes: str


def program_of(model: TrainedModel) -> Program:
    """Return the program of a model, which takes clips if all of its members take the same.

    Otherwise it takes whole tracks at the highest rate, because a forest on songs has no clips and
    members at other rates or with other clips have no common ones.
    """
    fused = model if isinstance(model, FusedPredictor) else FusedPredictor((model,), (1.0,))
    members = fused.members
    rate, bundles = max(model.sample_rates), [one.bundle for one in members]
    clip, feature = bundles[0].clip, bundles[0].feature
    modules: list[torch.nn.Module]
    if all(_same_clips(one, bundles[0]) for one in bundles):
        length = least = feature.num_samples(clip.clip_seconds)
        modules = [WaveformModel(one) for one in members]
        takes = f"one-channel clips of {length} samples at {rate} Hz, full scale at 1"
    else:
        of_tracks = [TrackModel(one, rate) for one in members]
        length, least, modules = None, max(one.least for one in of_tracks), [*of_tracks]
        takes = f"one-channel tracks of at least {least} samples at {rate} Hz, full scale at 1"
    return Program(FusedModel(modules, fused.weights).eval(), length, least, takes)


def _same_clips(one: Bundle, other: Bundle) -> bool:
    """Return True if two models take the same clips; a model of whole tracks takes none."""
    rates = one.feature.sample_rate, other.feature.sample_rate
    is_of_clips = one.feature.row.column != "track"
    return is_of_clips and one.clip == other.clip and rates[0] == rates[1]
