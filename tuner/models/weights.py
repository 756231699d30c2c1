"""Trained weights: read from a safetensors file or torch hub, matched to a module by name."""

from __future__ import annotations

import contextlib
import shutil
import urllib.request
import uuid
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from tuner.errors import WeightsError

# The first bytes of a file of torch.save: a zip archive since torch 1.6, a pickle before.
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")
# In an exported model the network's body sits next to its head and the standardisation.
BODY = "network.body."
MAX_SHOWN = 4
TIMEOUT_SECONDS = 20.0
"""Timeout for a silent server."""
_OTHER_WAY = "or write `weights: FILE` with a safetensors file"


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a safetensors file, on the CPU, by name.

    Raises:
        WeightsError: The file is missing, a pickle, or not a safetensors file.
    """
    file = Path(path).expanduser()
    try:
        with file.open("rb") as content:
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


def body_weights(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of a network's body, under the names they have inside it.

    For a model exported by a study this drops the classifier and the standardisation. Any other
    file is assumed to hold a body and comes back unchanged.
    """
    own = {k.removeprefix(BODY): v for k, v in tensors.items() if k.startswith(BODY)}
    return own or dict(tensors)


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
        "not finite": [name for name, value in tensors.items() if not value.isfinite().all()],
    }
    if any(faults.values()):
        found = "; ".join(f"{kind}: {_first(names)}" for kind, names in faults.items() if names)
        raise WeightsError(f"{what}: these are not its weights; {found}")
    module.load_state_dict(dict(tensors))


def _first(names: list[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more


def read_published(
    address: str, timeout_seconds: float = TIMEOUT_SECONDS
) -> Mapping[str, torch.Tensor]:
    """Read the state dict at an address, on the CPU, from torch hub's cache or the network.

    The file is a pickle. torch's weights-only reader runs no code that the file asks for.

    Args:
        address: Address of a ``.pth`` file; its last part is the name in the cache.
        timeout_seconds: Timeout for a silent server.

    Raises:
        WeightsError: The file is neither cached nor reachable, or holds no weights.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / address.rsplit("/", 1)[-1]
    if not file.is_file():
        _fetch(address, file, timeout_seconds)
    try:
        # By default this function runs whatever code the pickle asks for.
        state: Any = torch.hub.load_state_dict_from_url(
            address, model_dir=str(file.parent), map_location="cpu", weights_only=True
        )
        if not all(torch.is_tensor(value) for value in state.values()):
            raise TypeError("not a state dict")
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a broken pickle raises anything
        raise WeightsError(
            f"{file}: damaged, or it holds something other than weights and is not loaded; remove "
            f"it to fetch it again, {_OTHER_WAY}"
        ) from error
    return dict(state)


def _fetch(address: str, file: Path, timeout_seconds: float) -> None:
    """Download ``address`` to ``file``, completely or not at all.

    torch.hub's own function waits without limit for a silent server, keeps the remains of a
    broken connection, and prints to standard output.
    """
    partial = file.with_name(f"{file.name}.{uuid.uuid4().hex}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(address, timeout=timeout_seconds) as answer,
            partial.open("wb") as target,
        ):
            shutil.copyfileobj(answer, target, 1 << 20)
            received, expected = target.tell(), answer.headers.get("Content-Length")
        if expected is not None and received != int(expected):
            raise OSError(f"the connection broke after {received:,} of {int(expected):,} bytes")
        partial.replace(file)
    except (OSError, HTTPException) as error:
        raise WeightsError(
            f"weights: pretrained: {address} cannot be fetched: {error}; put that file at {file}, "
            f"{_OTHER_WAY}"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the file or its folder may not exist
            partial.unlink()
