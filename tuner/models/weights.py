"""Trained weights of a model: the body of an exported one, and files of torch hub."""

from __future__ import annotations

import contextlib
import shutil
import urllib.request
import uuid
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from pipelines.errors import WeightsError
from pipelines.features.networks.fetch import offline

# In an exported model the network's body sits next to its head and the standardisation.
BODY = "network.body."
TIMEOUT_SECONDS = 20.0
"""Timeout for a silent server."""
_OTHER_WAY = "or write `weights: FILE` with a safetensors file"


def body_weights(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of a network's body, under the names they have inside it.

    For a model exported by a study this drops the classifier and the standardisation. Any other
    file is assumed to hold a body and comes back unchanged.
    """
    own = {k.removeprefix(BODY): v for k, v in tensors.items() if k.startswith(BODY)}
    return own or dict(tensors)


def hub_file(address: str) -> Path:
    """Return where torch hub's cache keeps the file of an address, whether it is there or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / address.rsplit("/", 1)[-1]


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
    file = hub_file(address)
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
        if offline():
            raise OSError("HF_HUB_OFFLINE is set")
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
