"""The choice of networks and layers in a space file: ``NAME`` or ``FILE``, and ``:LAYER``.

Settings hold a choice of several as one text, ``musicnn_msd + a.safetensors``, which a sampler
can draw and a ledger can hold. A ``+`` of a path is doubled there.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError

from pipelines.errors import SpecError, WeightsError
from pipelines.features.networks import (
    Network,
    Provenance,
    is_file,
    named,
    store,
    unknown,
)

JOINT = " + "
"""Between networks that are joined in one text."""
_PLUS = "+"


@dataclass(frozen=True)
class Selection:
    """Layers of one network.

    Attributes:
        source: Name of the network, or path of a file with weights for it.
        network: Row of the network.
        layers: Names of the layers.
    """

    source: str
    network: Network
    layers: tuple[str, ...]

    @property
    def num_rows(self) -> int:
        """Number of activations of one clip."""
        return sum(self.network.layers[layer] for layer in self.layers)


def parse(text: str) -> Selection:
    """Read a choice of one network: its default layers, or the layer after a colon.

    Raises:
        SpecError: There is no such network or layer; suggests names.
        WeightsError: The file cannot be read, or belongs to no network.
    """
    source, layer = _parts(text)
    if not source:
        raise SpecError("a network has no name; write `NAME`, `NAME + NAME`, or a list of names")
    network = store.network_of(source)
    if layer is None:
        return Selection(source, network, network.default)
    if layer not in network.layers:
        raise SpecError(unknown(f"layer of {network.name}", layer, network.layers))
    return Selection(source, network, (layer,))


def _parts(text: str) -> tuple[str, str | None]:
    """Split a choice into its source and the layer after a colon; None without a colon."""
    source, colon, layer = text.rpartition(":")
    return (source, layer) if colon and not is_file(text) else (text, None)


def parse_all(texts: Sequence[str]) -> tuple[Selection, ...]:
    """Read a choice of several networks, all at the same sample rate and no layer twice.

    Raises:
        SpecError: Nothing is chosen, or it cannot be joined; says what to write instead.
        WeightsError: A file cannot be read, or belongs to no network.
    """
    chosen = tuple(map(parse, texts))
    if not chosen:
        raise SpecError("no network is named; name at least one")
    rates = {one.source: one.network.sample_rate for one in chosen}
    if len(set(rates.values())) > 1:
        found = ", ".join(f"{source} at {rate} Hz" for source, rate in rates.items())
        raise SpecError(f"networks that are joined must have one sample rate, got {found}")
    counts = Counter((one.source, layer) for one in chosen for layer in one.layers)
    if twice := [layer for layer, count in counts.items() if count > 1]:
        source, layer = min(twice)
        raise SpecError(f"{source}:{layer} is chosen twice; name it once")
    return chosen


def num_rows(texts: Sequence[str]) -> int:
    """Return the number of activations of one clip; raises as ``parse_all``."""
    return sum(one.num_rows for one in parse_all(texts))


def joined(value: Any) -> Any:
    """Join choices, a text or a list, in one text with absolute paths; leave other values alone.

    Each item of a list is one choice, whatever its path holds. Workers run in another folder,
    where a relative path would lead to another file.

    Raises:
        PydanticCustomError: An item of a list is not text; says which.
    """
    if not isinstance(value, str | list | tuple):
        return value
    chosen = split(value) if isinstance(value, str) else value
    for number, one in enumerate(chosen, start=1):
        if not isinstance(one, str):
            raise PydanticCustomError(
                "network_item",
                "item {number} must be the name of a network or the path of a file, as in "
                "[musicnn_msd, speech]",
                {"number": number, "item": one},
            )
    return JOINT.join(_absolute(one).replace(_PLUS, 2 * _PLUS) for one in chosen)


def _absolute(text: str) -> str:
    source, layer = _parts(text)
    if not is_file(source):
        return text
    # os.path refuses nothing; pathlib raises for an unknown user.
    path = os.path.abspath(os.path.expanduser(source))  # noqa: PTH100, PTH111
    return path if layer is None else f"{path}:{layer}"


def names_files(texts: Sequence[str]) -> bool:
    """Return True if a choice names a file of weights."""
    return any(is_file(_parts(text)[0]) for text in texts)


def split(text: str) -> tuple[str, ...]:
    """Return the choices that a text joins."""
    parts = re.split(r"(?<!\+)\+(?!\+)", text)
    return tuple(one.strip().replace(2 * _PLUS, _PLUS) for one in parts)


def provenance(text: str) -> Provenance:
    """Return what the weights of one choice were trained on, even if their file is gone.

    Raises:
        SpecError: There is no such network.
    """
    source, _ = _parts(text)
    return store.provenance_of_file(source) if is_file(source) else named(source).provenance


def fault(texts: Sequence[str]) -> str | None:
    """Return why a choice cannot be used, and what to write instead; None if it can."""
    try:
        parse_all(texts)
    except (SpecError, WeightsError) as error:
        in_list = len(texts) > 1 and names_files(texts)
        return f"{error}" + ("; a path with a + goes in a list, [a+b.safetensors]" * in_list)
    return None


def identity(texts: Sequence[str]) -> str:
    """Return a text that changes whenever the activations do; raises as ``parse_all``."""
    parts = (f"{store.identity(o.source)}:{','.join(o.layers)}" for o in parse_all(texts))
    return JOINT.join(parts)


def without_files(texts: Sequence[str]) -> str:
    """Return the same layers with the names of networks in place of files, joined."""
    return JOINT.join(f"{o.network.name}:{layer}" for o in parse_all(texts) for layer in o.layers)
