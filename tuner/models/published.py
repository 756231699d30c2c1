"""All published weights that a space file can name: of packages, timm and torchaudio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from pipelines.features.networks import NETWORKS, Network, store
from tuner.models.architectures import ARCHITECTURES
from tuner.models.backbone import Backbone
from tuner.models.musicnn import Musicnn
from tuner.models.settings import PRETRAINED, ModelSettings
from tuner.models.wav2vec2 import Wav2Vec2

BYTES_PER_WEIGHT = 4


@dataclass(frozen=True)
class Published:
    """Published weights, and how to get and to use them.

    Attributes:
        name: Name for ``tuner.weights fetch``.
        use: What to write in a space file.
        num_bytes: Size of what is fetched.
        licence: Licence of the weights.
        trained_on: Data that they were trained on.
        source: Where they come from.
        find: Returns their file in this machine's cache; None if they are not there.
        fetch: Puts them there; raises WeightsError.
    """

    name: str
    use: str
    num_bytes: int
    licence: str
    trained_on: str
    source: str
    find: Callable[[], Path | None]
    fetch: Callable[[], object]


def published() -> dict[str, Published]:
    """List everything by name; imports timm, which takes seconds."""
    rows = (*_networks(), *_backbones(), *_wav2vec2())
    return {row.name: row for row in rows}


def _networks() -> Iterator[Published]:
    for network in NETWORKS.values():
        yield Published(
            name=network.name,
            use=_use(network),
            num_bytes=network.source.num_bytes,
            licence=network.licence,
            trained_on=network.trained_on,
            source=str(network.source),
            find=partial(store.find, network),
            fetch=partial(store.weights_file, network),
        )


def _use(network: Network) -> str:
    family, _, data = network.name.partition("_")
    as_model = f" or model: {{name: {family}, weights: {data}}}"
    is_model = family in Musicnn.names() and data in Musicnn.published
    return f"features: {{kind: embedding, network: {network.name}}}" + (
        as_model if is_model else ""
    )


def _backbones() -> Iterator[Published]:
    import timm

    from tuner.models import backbone_network

    for name, architecture in ARCHITECTURES.items():
        timm_name = architecture.timm_name or name
        with torch.device("meta"):
            network = timm.create_model(timm_name, num_classes=0, **architecture.options)
        known = timm.get_pretrained_cfg(timm_name)
        yield Published(
            name=name,
            use=f"model: {{name: {name}, weights: pretrained}}",
            num_bytes=_num_bytes(network),
            licence=architecture.published.get("license", known.license),
            trained_on=architecture.trained_on,
            source=f"{backbone_network.hub_id_of(name)} on Hugging Face",
            find=partial(backbone_network.cached_file, name),
            fetch=partial(_build, Backbone(name=name, weights=PRETRAINED)),
        )


def _wav2vec2() -> Iterator[Published]:
    from tuner.models import wav2vec2_network
    from tuner.models.weights import hub_file

    for size, address in wav2vec2_network.PUBLISHED.items():
        with torch.device("meta"):
            network = wav2vec2_network.architecture(size)
        settings = {"size": size, "weights": PRETRAINED}
        yield Published(
            name=f"wav2vec2_{size}",
            use=f"model: {{name: wav2vec2, size: {size}, weights: pretrained}}",
            num_bytes=_num_bytes(network),
            licence="MIT",
            trained_on=Wav2Vec2.trained_on,
            source=address,
            find=partial(_if_there, hub_file(address)),
            fetch=partial(_build, Wav2Vec2.model_validate(settings)),
        )


def _if_there(file: Path) -> Path | None:
    return file if file.is_file() else None


def _num_bytes(network: nn.Module) -> int:
    return BYTES_PER_WEIGHT * sum(p.numel() for p in network.parameters())


def _build(model: ModelSettings) -> None:
    """Fetch weights by building their network, as a study does."""
    model.build(num_labels=2, num_rows=1)
