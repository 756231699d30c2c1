"""Small package files with weights, made on the spot, and rows of the table that read them."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipelines.features.networks import Network
from pipelines.features.networks.fetch import Source, Wheel

WEIGHT = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
# The form of ``content_digest``, written out for this one tensor.
DIGEST = hashlib.sha256(
    b"linear.weight F32 [2, 3] " + struct.pack("<6f", 1, 2, 3, 4, 5, 6)
).hexdigest()


def write_wheel(folder: Path, package: str = "tinynet", version: str = "1.0") -> Wheel:
    """Write a package whose only content is a table of numbers."""
    file = folder / f"{package}-{version}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{package}-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("weights.json", json.dumps(WEIGHT))
        content.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
            "Requires-Dist: no-such-package==1.0\n",
        )
        content.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        content.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Wheel(package, version, "any", digest, file.stat().st_size)


class Tiny(torch.nn.Module):
    """Mean and peak of samples, each mapped by one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 2, bias=False)

    def forward(self, samples: torch.Tensor) -> dict[str, torch.Tensor]:
        parts = (samples.mean(1), samples.amax(1), samples.amin(1))
        mapped = self.linear(torch.stack(parts, dim=1))
        return {"sums": mapped, "peaks": parts[1][:, None]}


def _convert(file: Path) -> dict[str, torch.Tensor]:
    with zipfile.ZipFile(file) as wheel:
        return {"linear.weight": torch.tensor(json.loads(wheel.read("weights.json")))}


def tiny_row(name: str, source: Source, **changes: Any) -> Network:
    """Return a row with two layers, of two numbers and of one."""
    row = Network(
        name=name,
        summary="nothing",
        sample_rate=16_000,
        layers={"sums": 2, "peaks": 1},
        default=("sums",),
        source=source,
        digest=DIGEST,
        licence="none",
        trained_on="nothing",
        overlaps={},
        build=Tiny,
        convert=_convert,
    )
    return replace(row, **changes)
