"""A published state file of torch hub: out of its cache, or fetched into it."""

from __future__ import annotations

import contextlib
import shutil
import urllib.request
import uuid
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tuner.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_SECONDS = 20.0
"""How long a server may be silent."""
_OTHER_WAY = "or write `weights: FILE` with a safetensors file"


def read_published(
    address: str, timeout_seconds: float = TIMEOUT_SECONDS
) -> Mapping[str, torch.Tensor]:
    """The state dict at an address, on the CPU; fetched once, then taken from the cache.

    The file is a pickle. It is read with torch's reader for weights only, which runs nothing that
    such a file asks for.

    Args:
        address: of a ``.pth`` file; its last part is the name in the cache.
        timeout_seconds: how long the server may be silent.

    Raises:
        WeightsError: it is not in the cache and cannot be fetched, or is no file of weights.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / address.rsplit("/", 1)[-1]
    if not file.is_file():
        _fetch(address, file, timeout_seconds)
    try:
        # The default of this function is to run what the pickle says.
        state: Any = torch.hub.load_state_dict_from_url(
            address, model_dir=str(file.parent), map_location="cpu", weights_only=True
        )
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a broken pickle ends in whatever its reader stumbles over
        raise _no_weights(file) from error
    if not (isinstance(state, dict) and all(torch.is_tensor(v) for v in state.values())):
        raise _no_weights(file)
    return state


def _no_weights(file: Path) -> WeightsError:
    return WeightsError(
        f"{file}: damaged, or something else than weights alone, which is not loaded; remove it "
        f"for it to be fetched again, {_OTHER_WAY}"
    )


def _fetch(address: str, file: Path, timeout_seconds: float) -> None:
    """Write what is at ``address`` to ``file``, whole or not at all.

    Not with torch.hub's own function, which waits for ever on a silent server, keeps what a
    broken connection has left, and prints to standard output.
    """
    partial = file.with_name(f"{file.name}.{uuid.uuid4().hex}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(address, timeout=timeout_seconds) as answer,
            partial.open("wb") as target,
        ):
            shutil.copyfileobj(answer, target, 1 << 20)
            came, promised = target.tell(), answer.headers.get("Content-Length")
        if promised is not None and came != int(promised):
            raise OSError(f"the connection broke after {came:,} of {int(promised):,} bytes")
        partial.replace(file)
    except (OSError, HTTPException) as error:
        raise WeightsError(
            f"weights: pretrained: {address} cannot be fetched: {error}; put that file at {file}, "
            f"{_OTHER_WAY}"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it is not there, or its folder is not
            partial.unlink()
