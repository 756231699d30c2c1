"""Trained weights: read from a file, told apart by their content, matched to a module by name."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from pipelines.errors import WeightsError
from pipelines.regular_files import expect_file

if TYPE_CHECKING:
    import torch
    from torch import nn

# The first bytes of a file of torch.save: a zip archive since torch 1.6, a pickle before.
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")
MAX_SHOWN = 4


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a safetensors file, on the CPU, by name.

    Raises:
        WeightsError: The file is missing, a pickle, or not a safetensors file.
    """
    import safetensors.torch

    file = Path(path).expanduser()
    try:
        with expect_file(file).open("rb") as content:
            start = content.read(9)
        # A safetensors file begins with a number of eight bytes, which may look like anything.
        if start.startswith(PICKLE_STARTS) and start[8:] != b"{":
            raise WeightsError(
                f"{file}: this is a pickle, which can run any program while it is read; only "
                "safetensors files are loaded"
            )
        return safetensors.torch.load_file(file)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{file}: not a safetensors file: {error}") from error


def read_state_dict(file: Path) -> dict[str, torch.Tensor]:
    """Read a state dict that torch.save wrote (``.pth``), on the CPU, without running its code.

    Raises:
        WeightsError: The file is missing or damaged, or holds anything but tensors by name.
    """
    import torch

    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:  # torch does not compare the checksums
                if name := archive.testzip():
                    raise ValueError(f"the checksum of {name} differs")
        # Published files of torchaudio and timm have this format only.
        state: Any = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251
        if not all(isinstance(k, str) and torch.is_tensor(v) for k, v in state.items()):
            raise TypeError("not a state dict")
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a broken pickle raises anything
        raise WeightsError(
            f"{file}: damaged, or it holds something other than weights and is not loaded"
        ) from error
    return dict(state)


def content_digest(content: bytes) -> str:
    """Return the SHA-256 over name, type, shape and values of each tensor of a safetensors file.

    Neither its metadata nor the order of the tensors counts.

    Raises:
        SafetensorError: It is not the content of a safetensors file.
    """
    total = hashlib.sha256()
    tensors = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        total.update(f"{name} {tensor['dtype']} {tensor['shape']} ".encode())
        total.update(tensor["data"])
    return total.hexdigest()


def load_into(module: nn.Module, tensors: Mapping[str, torch.Tensor], what: str) -> None:
    """Copy tensors into a module's parameters and buffers of the same names, all or nothing.

    Args:
        module: Receives the values, in its own types and on its own device.
        tensors: One for each entry of the module's state, no more and no less.
        what: File and architecture, for the error.

    Raises:
        WeightsError: Names the first tensors that are missing, unexpected, or of another shape.
    """
    state = module.state_dict()
    faults = {
        "missing": [name for name in state if name not in tensors],
        "not part of it": sorted(name for name in tensors if name not in state),
        "of another shape": [
            f"{name} {list(tensors[name].shape)} instead of {list(value.shape)}"
            for name, value in state.items()
            if name in tensors and tensors[name].shape != value.shape
        ],
        "not finite": [
            name for name, value in tensors.items() if not value.float().isfinite().all()
        ],
    }
    if any(faults.values()):
        found = "; ".join(f"{kind}: {_first(names)}" for kind, names in faults.items() if names)
        raise WeightsError(f"{what}: these are not its weights; {found}")
    module.load_state_dict(dict(tensors))


def _first(names: list[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more
