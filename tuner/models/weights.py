"""Trained weights of a model: the body of an exported one, and files of torch hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from pipelines.errors import WeightsError
from pipelines.features.networks.fetch import SILENCE_SECONDS, download
from pipelines.storage import Folder
from pipelines.weights import read_state_dict

# In an exported model the network's body sits next to its head and the standardisation.
BODY = "network.body."
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
    address: str, timeout_seconds: float = SILENCE_SECONDS
) -> Mapping[str, torch.Tensor]:
    """Read the state dict at an address, on the CPU, from torch hub's cache or the network.

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
        return read_state_dict(file)
    except WeightsError as error:
        raise WeightsError(f"{error}; remove it to fetch it again, {_OTHER_WAY}") from error


def _fetch(address: str, file: Path, timeout_seconds: float) -> None:
    """Download ``address`` to ``file``, completely or not at all.

    torch.hub's own function waits without limit for a silent server, keeps the remains of a
    broken connection, and prints to standard output.
    """
    try:
        with Folder(file.parent).writing(file.name) as scratch:
            download(address, scratch, timeout_seconds=timeout_seconds)
    except OSError as error:
        raise WeightsError(
            f"weights: pretrained: {address} cannot be fetched: {error}; put that file at {file}, "
            f"{_OTHER_WAY}"
        ) from error
