"""The table of pretrained audio networks: what each takes, gives, comes from and was trained on.

A network turns samples into activations. Frozen, it is a front end (features of kind
``embedding``); a model may also start from its weights. This module loads neither torch nor
NumPy, because every command that reads a space file imports it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.errors import SpecError
from pipelines.features.networks.fetch import Source, Wheel
from pipelines.plain_text import shorten

if TYPE_CHECKING:
    import torch


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
        source: The file that brings its weights: a ``Wheel``, or a ``Download`` at an address.
        digest: ``pipelines.weights.content_digest`` of its converted weights. An error of the
            first conversion shows it.
        licence: Licence of the weights.
        trained_on: Data that it was trained on, in words.
        overlaps: Known overlaps of that data with data sets, by the layout's name.
        build: Builds the module with random weights: samples float32[n, l] at ``sample_rate`` to
            a dict with the activations float32[n, w] of each layer. Any l from 1 on is accepted.
        convert: Reads the state of that module from the file. ``pipelines.weights.read_weights``
            and ``read_state_dict`` do for files that already hold it.
    """

    name: str
    summary: str
    sample_rate: int
    layers: Mapping[str, int]
    default: tuple[str, ...]
    source: Source
    digest: str
    licence: str
    trained_on: str
    overlaps: Mapping[str, str]
    build: Callable[[], torch.nn.Module]
    convert: Callable[[Path], Mapping[str, torch.Tensor]]

    @property
    def provenance(self) -> Provenance:
        """Data that it was trained on."""
        return Provenance(self.name, self.trained_on, self.overlaps)


def _code(module: str) -> Any:
    """Import a module of this folder when a row needs it, because it loads torch."""
    return import_module(f"{__name__}.{module}")


_MUSICNN_WHEEL = Wheel(
    package="musicnn",
    version="0.1.0",
    platform="any",
    sha256="f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa",
    num_bytes=29_292_476,
)
_MUSICNN_LAYERS = {
    "pooled": 1506, "dense": 200, "tags": 50,
    "timbral": 408, "temporal": 153, "cnn1": 64, "cnn2": 64, "cnn3": 64,
}  # fmt: skip
_VGG_LAYERS = {"pool1": 256, "pool2": 256, "pool3": 256, "pool4": 256, "pool5": 256, "tags": 50}
_MSD = "Million Song Dataset (about 200,000 songs with tags of last.fm; commercial recordings)"
_MSD_OVERLAPS = {"gtzan": "likely to share artists and recordings"}
_MTT = "MagnaTagATune (about 19,000 clips of music of Magnatune, with tags from a game)"

_ROWS = (
    Network(
        name="musicnn_msd",
        summary="genre, mood and instruments of music",
        sample_rate=16_000,
        layers=_MUSICNN_LAYERS,
        default=("pooled", "dense"),
        source=_MUSICNN_WHEEL,
        digest="1acbc861b37d457d2e4af42b6ac9f4e1346fa4690a4532a9dd777c6c0419ead7",
        licence="ISC",
        trained_on=_MSD,
        overlaps=_MSD_OVERLAPS,
        build=lambda: _code("musicnn").build(),
        convert=lambda file: _code("musicnn").convert(file, "musicnn/MSD_musicnn"),
    ),
    Network(
        name="musicnn_mtt",
        summary="genre, mood and instruments of music",
        sample_rate=16_000,
        layers=_MUSICNN_LAYERS,
        default=("pooled", "dense"),
        source=_MUSICNN_WHEEL,
        digest="9462cfbde51d92dfb8617f480ad90167d63abf565a6d32fe222fa96a5fe66b86",
        licence="ISC",
        trained_on=_MTT,
        overlaps={},
        build=lambda: _code("musicnn").build(),
        convert=lambda file: _code("musicnn").convert(file, "musicnn/MTT_musicnn"),
    ),
    Network(
        name="vgg_msd",
        summary="music and other sounds, with small filters",
        sample_rate=16_000,
        layers=_VGG_LAYERS,
        default=("pool2", "pool3", "pool4", "pool5"),
        source=_MUSICNN_WHEEL,
        digest="23aa8a33c801f2b86b66bc855f4705e31aeb93770f134eda04ad89eb6775f8b9",
        licence="ISC",
        trained_on=_MSD,
        overlaps=_MSD_OVERLAPS,
        build=lambda: _code("vgg").build(),
        convert=lambda file: _code("vgg").convert(file, "musicnn/MSD_vgg"),
    ),
    Network(
        name="vgg_mtt",
        summary="music and other sounds, with small filters",
        sample_rate=16_000,
        layers=_VGG_LAYERS,
        default=("pool2", "pool3", "pool4", "pool5"),
        source=_MUSICNN_WHEEL,
        digest="8f6fb02842c687db135adfac57566664a02e6413cfee00a8264be301448b5cc3",
        licence="ISC",
        trained_on=_MTT,
        overlaps={},
        build=lambda: _code("vgg").build(),
        convert=lambda file: _code("vgg").convert(file, "musicnn/MTT_vgg"),
    ),
    Network(
        name="speech",
        summary="spoken words, and other short sounds",
        sample_rate=16_000,
        layers={"pooled": 192},
        default=("pooled",),
        source=Wheel(
            package="pyopen-wakeword",
            version="1.1.0",
            platform="manylinux_2_35_x86_64",
            sha256="754347a59de2b3d378a0cbc404a8b41164036e74fa1c185f88056974e4bfb6b4",
            num_bytes=7_132_152,
        ),
        digest="746fd279f4fe3803cb3f4ac2d20594fb518defa01de78654b35f7726193b6bbc",
        licence="Apache-2.0",
        trained_on="recordings of speech, to spot words in them (Google; the data are not "
        "published)",
        overlaps={},
        build=lambda: _code("speech").SpeechEmbedding(),
        convert=lambda file: _code("speech").convert(file),
    ),
)

NETWORKS: dict[str, Network] = {row.name: row for row in _ROWS}


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
    name = shorten(name)  # one of a megabyte would take seconds to compare
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]!r}? There" if close else "there"
    return f"unknown {what} {name!r}; {hint} are {', '.join(known)}"
