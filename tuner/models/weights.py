"""Published weights from a safetensors file: reading it, and matching it to a module by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import safetensors
import safetensors.torch
import torch

from tuner.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

# The first bytes of what torch.save has written: a zip archive since torch 1.6, a pickle before.
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")
# In an exported model the network's body stands beside its head and the standardisation.
BODY = "network.body."
SHOWN = 4


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, on the CPU, by name.

    Raises:
        WeightsError: there is no such file, it is a pickle, or it is not a safetensors file.
    """
    file = Path(path).expanduser()
    try:
        with file.open("rb") as content:
            start = content.read(9)
        # A safetensors file begins with eight bytes of a number, which may look like anything.
        if start.startswith(PICKLE_STARTS) and start[8:] != b"{":
            raise WeightsError(
                f"{file}: this is a pickle, which can run any program while it is read, so only "
                "safetensors files are loaded"
            )
        return safetensors.torch.load_file(file)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{file}: not a safetensors file: {error}") from error


def body_weights(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a network's body, with the names they have inside it.

    From a model that a study has exported this takes the body and leaves the classifier and the
    standardisation; any other file is taken to hold a body and comes back as it is.
    """
    own = {k.removeprefix(BODY): v for k, v in tensors.items() if k.startswith(BODY)}
    return own or dict(tensors)


def load_into(module: nn.Module, tensors: Mapping[str, torch.Tensor], what: str) -> None:
    """Copy tensors into a module's parameters and buffers of the same names, all or nothing.

    Args:
        module: gets the values, in its own types and on its own device.
        tensors: one for each entry of the module's state, no more and no less.
        what: file and architecture, for the error.

    Raises:
        WeightsError: names the first tensors that are missing, not known to the module, or of
            another shape.
    """
    state = module.state_dict()
    shapes = [
        f"{name} {list(tensors[name].shape)} instead of {list(value.shape)}"
        for name, value in state.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    faults = [
        f"{kind}: {_first(names)}"
        for kind, names in (
            ("missing", [name for name in state if name not in tensors]),
            ("not part of it", sorted(name for name in tensors if name not in state)),
            ("of another shape", shapes),
            ("no finite numbers", _broken(tensors)),
        )
        if names
    ]
    if faults:
        raise WeightsError(f"{what}: these are not its weights; {'; '.join(faults)}")
    module.load_state_dict(dict(tensors))


def _broken(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Tensors with values that are no numbers; whole numbers always are."""
    return [
        name for name, value in tensors.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]  # fmt: skip


def _first(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more
