"""The networks that a space file names: ``musicnn_msd + speech``, each with layers or without.

Nothing here loads torch, because every command that reads a space file imports it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.errors import SpecError, WeightsError
from pipelines.features.networks import Network, is_file, store, unknown

JOINT = " + "
"""Between the names of networks whose activations are joined."""


@dataclass(frozen=True)
class Selected:
    """One network of a selection.

    Attributes:
        network: Row of the table.
        layers: Its layers that are used.
        source: Name of the network, or path of a file with its weights.
    """

    network: Network
    layers: tuple[str, ...]
    source: str

    @property
    def num_rows(self) -> int:
        """Number of its activations for one clip."""
        return sum(self.network.layers[layer] for layer in self.layers)

    @property
    def by_name(self) -> str:
        """Name of the network and its layers, without a file."""
        return f"{self.network.name}:{','.join(self.layers)}"


def select(text: str) -> tuple[Selected, ...]:
    """Read a selection.

    Args:
        text: Names of the table or paths of safetensors files, joined by ``+``; after a colon,
            layers with commas between them.

    Raises:
        SpecError: A name does not exist, or the networks cannot be joined; says what exists.
        WeightsError: A file cannot be read, or belongs to no network.
    """
    found = tuple(_selected(part.strip()) for part in text.split(JOINT.strip()))
    if len({(one.source, one.layers) for one in found}) < len(found):
        raise SpecError(f"{text} names a network twice")
    rates = sorted({one.network.sample_rate for one in found})
    if len(rates) > 1:
        raise SpecError(f"the networks of {text} take different sample rates: {rates} Hz")
    return found


def _selected(part: str) -> Selected:
    end = part.rfind(":") if ":" in part else len(part)
    if is_file(part):  # a path may hold a colon
        end = len(part)
    source, layers = part[:end], part[end + 1 :]
    network = store.network_of(source)
    chosen = tuple(layers.split(",")) if layers else network.default
    for layer in chosen:
        if layer not in network.layers:
            raise SpecError(unknown(f"layer of {network.name}", layer, network.layers))
    return Selected(network, chosen, source)


def fault(text: str) -> str | None:
    """Return what is wrong with a selection, and what exists."""
    try:
        select(text)
    except (SpecError, WeightsError) as error:
        return str(error)
    return None


def sample_rate(text: str) -> int | None:
    """Return the sample rate of a selection, in Hz; None if there is a fault in it."""
    return None if fault(text) else select(text)[0].network.sample_rate


def num_rows(text: str) -> int:
    """Return the number of activations of a selection for one clip; 1 if it has a fault."""
    return 1 if fault(text) else sum(one.num_rows for one in select(text))


def identity(text: str) -> str:
    """Return a text that changes whenever the activations of a selection do.

    Raises:
        WeightsError: A file cannot be read.
    """
    selected = select(text)
    return JOINT.join(f"{store.identity(one.source)}:{','.join(one.layers)}" for one in selected)


def by_name(text: str) -> str:
    """Return a selection with the names of networks in place of files."""
    return JOINT.join(one.by_name for one in select(text))
