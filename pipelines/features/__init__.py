"""Audio features: the table of kinds, the settings they read, and fingerprints.

The transforms are in modules of their own, because a space file must load without NumPy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from pipelines.features.mel_scale import MelScale
from pipelines.features.networks import selection
from pipelines.rates import MAX_RATE_HZ, MIN_RATE_HZ
from pipelines.settings import Block, ClipSpec, Framing, SplitSpec

if TYPE_CHECKING:
    import torch

Kind = Literal["logmel", "stft", "mfcc", "tempogram", "waveform", "song", "embedding"]


Networks = Annotated[
    str,
    BeforeValidator(selection.joined),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    ),
]
"""Pretrained networks whose activations are joined: ``musicnn_msd + speech``, or a list."""


class FrontEnd(Block):
    """Front-end settings, in torchaudio's names; the kind may be left to the model."""

    kind: Literal["auto", Kind] = Field(
        "auto", description="Kind of features; auto: what the model takes, log-mel first."
    )
    sample_rate: int = Field(
        22050, ge=MIN_RATE_HZ, le=MAX_RATE_HZ, description="Sample rate, in Hz."
    )
    n_fft: int = Field(1024, ge=16, le=65_536, description="Length of the FFT, in samples.")
    win_length: int | None = Field(
        None, ge=1, description="Length of the Hann window, in samples; n_fft if not given."
    )
    hop_length: int = Field(512, ge=1, le=65_536, description="Hop between frames, in samples.")
    f_min: float = Field(0.0, ge=0, description="Lower edge of the lowest mel band, in Hz.")
    f_max: float | None = Field(
        None,
        gt=0,
        description="Upper edge of the highest band, in Hz; sample_rate / 2 if not given.",
    )
    n_mels: int = Field(64, ge=1, le=1024, description="Number of mel bands.")
    mel_scale: MelScale = Field(
        "htk",
        description="Mel scale: HTK's, with bands of peak 1, or Slaney's, with bands of area 1.",
    )
    n_mfcc: int = Field(20, ge=1, le=1024, description="Number of cepstral coefficients.")
    n_lags: int = Field(
        128, ge=2, le=2048, description="Rows of a tempogram: lags from 0, in frames."
    )
    network: Networks = Field(
        "musicnn_msd",
        description="Pretrained network of an embedding (`python -m tuner.weights` lists them), "
        "with a layer as in `musicnn_msd:dense`, or a converted file; `a + b` or a list "
        "joins several (a path with a + goes in a list).",
    )

    @property
    def networks(self) -> tuple[str, ...]:
        """The pretrained networks of an embedding; see ``networks.selection.parse``."""
        return selection.split(self.network)


class FeatureSpec(FrontEnd):
    """Front-end settings of a feature set.

    They may come from anyone, so validation opens no file that they name.
    """

    kind: Kind = Field("logmel", description="Kind of features.")

    def at_rate_of_networks(self) -> FeatureSpec:
        """Return the settings with the only sample rate that the networks of an embedding take.

        Reads the header of a file of weights. Other kinds, and networks with a fault that
        ``check_front_end`` reports, keep their rate.
        """
        if self.kind != "embedding" or selection.fault(self.networks):
            return self
        rate = selection.parse_all(self.networks)[0].network.sample_rate
        return self.model_copy(update={"sample_rate": rate})

    @property
    def row(self) -> FeatureKind:
        """Row of the kind in the table."""
        return KINDS[self.kind]

    @property
    def framing(self) -> Framing:
        """Frames of the Fourier transform."""
        return Framing(self.n_fft, self.win_length or self.n_fft, self.hop_length)

    @property
    def highest_hz(self) -> float:
        """Upper edge of the highest mel band, in Hz."""
        return self.sample_rate / 2 if self.f_max is None else self.f_max

    def num_samples(self, seconds: float) -> int:
        """Return the number of samples in ``seconds``."""
        return round(seconds * self.sample_rate)

    def shape(self, clip: ClipSpec) -> tuple[int, int]:
        """Return the shape (F, M) of the features of one clip: rows and columns."""
        samples = self.num_samples(clip.clip_seconds)
        columns = {"frame": self.framing.count(samples), "sample": samples}
        return self.row.num_rows(self), columns.get(self.row.column, 1)

    @property
    def column_samples(self) -> int:
        """Samples from one column to the next."""
        return self.hop_length if self.row.column == "frame" else 1

    def columns_in(self, seconds: float) -> int:
        """Return the number of columns that cover ``seconds`` of a clip."""
        samples = self.num_samples(seconds)
        columns = {"frame": 1 + samples // self.hop_length, "sample": samples}
        return columns.get(self.row.column, 1)

    def canonical(self) -> dict[str, Any]:
        """Return everything that changes the features, with defaults written out."""
        values = self.model_dump() | {
            "win_length": self.win_length or self.n_fft,
            "f_max": self.highest_hz,
            "network": selection.identity(self.networks) if "network" in self.row.reads else None,
        }
        if self.mel_scale == "htk":  # left out, so that older sets keep their fingerprints
            del values["mel_scale"]
        read = ("kind", "sample_rate", *self.row.reads)
        return {name: values[name] for name in read if name in values}


@dataclass(frozen=True)
class FeatureKind:
    """One kind of features.

    Attributes:
        summary: One-line description, for the documentation.
        reads: Settings that it reads besides ``sample_rate``; the others change neither its
            numbers nor its fingerprint. With ``n_mels`` it is made from mel bands, without from
            Fourier bins.
        num_rows: Returns the number of rows F.
        rows: The same in words, for messages.
        column: Meaning of a column: a ``frame`` of a spectrogram, a ``sample``, a whole ``clip``,
            or the whole ``track``, which is not cut into clips. Augmentation masks frames and
            flips the polarity of samples.
        decibels: True if values are levels in dB and rows are frequencies. Augmentation adds a
            gain to levels (it multiplies samples) and shifts the rows.
        head: Builds the torch module that makes it from the spectrogram in dB,
            float32[n, bands, m] -> float32[n, f, m]; None for the spectrogram itself. Building a
            feature set and training on a GPU use the same module.
    """

    summary: str
    reads: tuple[str, ...]
    num_rows: Callable[[FeatureSpec], int]
    rows: str
    column: Literal["frame", "sample", "clip", "track"] = "frame"
    decibels: bool = False
    head: Callable[[FeatureSpec], torch.nn.Module] | None = None

    @property
    def is_spectrogram(self) -> bool:
        """True if columns are frames."""
        return self.column == "frame"


def _cepstrum(feature: FeatureSpec) -> torch.nn.Module:
    from pipelines.features.modules import Cepstrum

    return Cepstrum(feature.n_mels, feature.n_mfcc)


def _tempogram(feature: FeatureSpec) -> torch.nn.Module:
    from pipelines.features.modules import Tempogram

    return Tempogram(feature.n_lags)


def _num_song_features(feature: FeatureSpec) -> int:
    from pipelines.features.song import SONG_FEATURES

    return len(SONG_FEATURES)


_FRAMES = ("n_fft", "win_length", "hop_length")
_MEL = (*_FRAMES, "f_min", "f_max", "n_mels", "mel_scale")

KINDS: dict[Kind, FeatureKind] = {
    "logmel": FeatureKind(
        summary="power mel spectrogram in dB",
        reads=_MEL,
        num_rows=lambda feature: feature.n_mels,
        rows="n_mels",
        decibels=True,
    ),
    "stft": FeatureKind(
        summary="power spectrogram in dB",
        reads=_FRAMES,
        num_rows=lambda feature: feature.n_fft // 2 + 1,
        rows="n_fft / 2 + 1",
        decibels=True,
    ),
    "mfcc": FeatureKind(
        summary="mel-frequency cepstral coefficients",
        reads=(*_MEL, "n_mfcc"),
        num_rows=lambda feature: feature.n_mfcc,
        rows="n_mfcc",
        head=_cepstrum,
    ),
    "tempogram": FeatureKind(
        summary="local autocorrelation of the onset strength",
        reads=(*_MEL, "n_lags"),
        num_rows=lambda feature: feature.n_lags,
        rows="n_lags",
        head=_tempogram,
    ),
    "waveform": FeatureKind(
        summary="samples",
        reads=(),
        num_rows=lambda feature: 1,
        rows="1",
        column="sample",
    ),
    "song": FeatureKind(
        summary="tempo and statistics of the whole track",
        reads=_FRAMES,
        num_rows=_num_song_features,
        rows="16",
        column="track",
    ),
    "embedding": FeatureKind(
        summary="activations of pretrained networks",
        reads=("network",),
        num_rows=lambda feature: selection.num_rows(feature.networks),
        rows="the network's activations",
        column="clip",
    ),
}

SPECTROGRAMS: tuple[Kind, ...] = tuple(name for name, row in KINDS.items() if row.is_spectrogram)


# Raised whenever the same settings would give other numbers or another layout on disk.
FORMAT_VERSION = 3


def fingerprint(
    content_digest: str, clip: ClipSpec, feature: FeatureSpec, split: SplitSpec
) -> str:
    """Return the name of a feature set: 16 hex digits over all that changes its numbers.

    Settings that mean the same give the same name: ``f_max=None`` and half the sample rate,
    ``win_length=None`` and ``n_fft``, shares when a column gives the split.
    """
    return _digest(
        {
            "version": FORMAT_VERSION,
            "content": content_digest,
            "clip": clip.canonical(),
            "feature": feature.canonical(),
            "split": split.canonical(),
        }
    )


def feature_key(clip: ClipSpec, feature: FeatureSpec) -> str:
    """Return the name of a way to turn a file into rows: 16 hex digits.

    Two feature sets with the same key hold the same rows for a file with the same bytes.
    """
    return _digest(
        {"version": FORMAT_VERSION, "clip": clip.canonical(), "feature": feature.canonical()}
    )


def _digest(parts: dict[str, Any]) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
