"""Published weights of timm: from the cache, else the network, else an error with remedies."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import huggingface_hub
import timm
from huggingface_hub import constants

from tuner.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

# What timm looks for, in its order.
FILES = ("model.safetensors", "pytorch_model.bin")
# The hub's client tries six times with growing pauses for each file, 46 s without network; one
# question ahead of it, with this limit in seconds, is enough to know.
REACH_SECONDS = 5.0
REASON_LENGTH = 300


def create_published(
    name: str, timm_name: str, options: Mapping[str, Any], record: Mapping[str, Any]
) -> nn.Module:
    """A timm network without classifier that has its published weights.

    timm sums the three channels of a published stem into one, which answers one channel as the
    published stem answers three copies of it.

    Args:
        name: what the space file calls the network, for the error.
        timm_name: the architecture in timm.
        options: arguments of ``timm.create_model``.
        record: overrides of timm's record of what is published.

    Raises:
        WeightsError: the weights are neither in the cache nor to be had from the network, or are
            not those of the network.
    """
    hub_id = record.get("hf_hub_id") or timm.get_pretrained_cfg(timm_name).hf_hub_id
    cached = _cached(hub_id)
    # Another loader, for files that are not on the hub, would take precedence over a file.
    overlay = {**record, "file": cached, "custom_load": False} if cached else dict(record)
    try:
        if cached is None:
            _reach()
        # The classifier is made and dropped again: only a complete network is loaded strictly,
        # and what timm does not find for an incomplete one would stay random.
        body: Any = timm.create_model(
            timm_name, pretrained=True, pretrained_cfg_overlay=overlay, **options,
            **({"num_classes": 0} if record.get("num_classes") == 0 else {}),
        )  # fmt: skip
    except Exception as error:  # whichever client speaks to the hub
        raise WeightsError(_remedies(name, hub_id, cached, error)) from error
    body.reset_classifier(0)
    whole: nn.Module = body
    return whole


def _cached(hub_id: str) -> str | None:
    for file in FILES:
        path = huggingface_hub.try_to_load_from_cache(hub_id, file)
        if isinstance(path, str):
            return path
    return None


def _reach() -> None:
    """Ask the hub for a sign of life, once; with ``HF_HUB_OFFLINE`` its client refuses."""
    huggingface_hub.get_session().head(constants.ENDPOINT, timeout=REACH_SECONDS)


def _remedies(name: str, hub_id: str, cached: str | None, error: Exception) -> str:
    why = textwrap.shorten(str(error), REASON_LENGTH) or type(error).__name__
    if cached:
        what = f"{name}: {cached} cannot be loaded as the published weights {hub_id}: {why}"
    else:
        what = (
            f"{name}: the published weights {hub_id} are not in the cache "
            f"{constants.HF_HUB_CACHE} and cannot be fetched: {why}"
        )
    return (
        f"{what}\nTwo remedies: run `hf download {hub_id}` on a machine with network and bring "
        "its cache here (HF_HOME names its folder on both), or give the weights as a safetensors "
        "file: `weights: FILE`"
    )
