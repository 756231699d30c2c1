"""Families of models for a study that leaves ``model`` open: those that fit data and budget."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from pipelines.features import FrontEnd
from tuner.config.look_up import mentions, node_at, values_at
from tuner.config.read_tree import read_tree
from tuner.config.situation import SHORT_SECONDS, Chosen, Situation
from tuner.config.tree import open_settings
from tuner.config.yaml_text import mark_of, write_scalar
from tuner.errors import SpaceError
from tuner.models import MODELS

if TYPE_CHECKING:
    from tuner.config.ranges import Range
    from tuner.config.yaml_text import Scalar

DEFAULT_NETWORK: Final = FrontEnd.model_fields["network"].default
FEWEST_EPOCHS: Final = 15
BUDGET_SHARE: Final = 0.2
"""Share of the budget that one trial may take, so that it holds ten on two cores."""


class Family(NamedTuple):
    """A family of models that a study can compare.

    Attributes:
        models: Alternatives of ``model``, as YAML.
        start: Known good configurations, for `search.start`: values by parameter.
        speed: Seconds of sound that one core learns from in a second in float32, measured on
            clips of 3 s with 64 bands at 50 frames a second; infinite if the model learns from
            numbers.
        network: Pretrained network that it starts from.
        least_seconds: Length of the shortest clips that it suits.
    """

    models: tuple[str, ...]
    start: tuple[dict[str, Scalar], ...]
    speed: float = math.inf
    network: str | None = None
    least_seconds: float = 0.0


FAMILIES: Final = {
    "linear": Family(
        ("{name: linear, loss: logistic, l2: {log_uniform: [3.0e-4, 1.0e-1]}}",
         "{name: linear, loss: ridge, l2: {log_uniform: [1.0e-2, 3.0]}}"),
        ({"model": "linear", "model.linear.l2": 0.01},
         {"model": "linear#2", "model.linear#2.l2": 0.3}),
    ),
    "mlp": Family(
        ("{name: mlp, hidden: {choice: [128, 512]}, input_dropout: {uniform: [0.0, 0.5]}, "
         "dropout: {uniform: [0.2, 0.7]}}",),
        ({"model": "mlp", "model.mlp.hidden": 512, "model.mlp.input_dropout": 0.2,
          "model.mlp.dropout": 0.5, "optim.lr": 1e-3},),
    ),
    "musicnn": Family(
        ("{name: musicnn, weights: msd, trainable_layers: {choice: [1, 4]}, "
         "dropout: {uniform: [0.2, 0.7]}}",),
        ({"model": "musicnn", "model.musicnn.trainable_layers": 4, "model.musicnn.dropout": 0.5,
          "optim.lr": 1e-3},),
        speed=30.0, network="musicnn_msd", least_seconds=SHORT_SECONDS,
    ),
    "cnn": Family(
        ("{name: cnn, blocks: 4, channels: {choice: [16, 24]}, pool: concat, "
         "dropout: {uniform: [0.0, 0.5]}}",),
        ({"model": "cnn", "model.cnn.channels": 24, "model.cnn.dropout": 0.25, "optim.lr": 3e-3,
          "augment.mixup": 0.3},),
        speed=250.0,
    ),
    "resnet18": Family(
        ("{name: resnet18, pool: concat, drop_rate: {uniform: [0.0, 0.5]}}",),
        ({"model": "resnet18", "model.resnet18.drop_rate": 0.2, "optim.lr": 2e-3,
          "augment.mixup": 0.3},),
        speed=100.0,
    ),
    "forest": Family(
        ("{name: forest, min_samples_leaf: {choice: [1, 2, 4]}}",),
        ({"model": "forest", "model.forest.min_samples_leaf": 1},),
    ),
}  # fmt: skip
HEADS: Final = ("linear", "mlp")  # on the activations of `features.network`
NETWORKS: Final = {
    "short": ("speech", "[musicnn_msd, speech]"),
    # ESC-10, five folds: 0.9375 for both musicnn, 0.920 for one, 0.9275 with vgg_mtt in its place.
    "long": ("[musicnn_msd, musicnn_mtt]", "musicnn_msd", "[musicnn_msd, speech]"),
}
"""Choices of `features.network`, the one to try first in front."""


def choose_models(s: Situation) -> Chosen:
    """Choose the families that are compared."""
    reasons: dict[str, list[str]] = {}
    for name in FAMILIES:
        reasons.setdefault(_left_out(s, name) or "", []).append(name)
    names = reasons.pop("", [])
    without = "; ".join(f"without {', '.join(left)}: {why}" for why, left in reasons.items())
    if not names:
        place = node_at(s.document, "model")
        assert place is not None
        message = f"no model can be chosen ({without}); write a model, or features.kind: auto"
        raise mark_of(place).error(message, "model")
    models = ", ".join(one for name in names for one in FAMILIES[name].models)
    return f"{{choice: [{models}]}}", "; ".join(filter(None, [", ".join(names), without]))


def _left_out(s: Situation, name: str) -> str | None:
    """Return why a study goes on without a family; None if it is compared."""
    family, kinds = FAMILIES[name], _kinds(s, name)
    if others := kinds - {*MODELS[name].takes}:
        return f"not for {', '.join(sorted(others))}"
    if "embedding" in kinds and not _networks(s):
        return f"no weights ({next(iter(s.missing.values()))})"
    if family.network and family.network in s.missing:
        return f"no weights ({s.missing[family.network]})"
    if s.number("data.clip_seconds") < family.least_seconds:
        return f"clips are shorter than {family.least_seconds:g} s"
    if name == "cnn":
        return None  # a study is never without a network
    seconds = FEWEST_EPOCHS * s.seen_seconds / (s.speed_factor * family.speed)
    if seconds > BUDGET_SHARE * s.budget_seconds:
        time = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} minutes"
        return f"{FEWEST_EPOCHS} epochs would take about {time} a trial"
    return None


def _kinds(s: Situation, name: str) -> set[str]:
    """Return the kinds of features that a model would get; the first that it takes for auto."""
    written = values_at(s.document, "features.kind")
    return {MODELS[name].takes[0] if kind in (None, "auto") else str(kind) for kind in written}


def choose_network(s: Situation) -> Chosen:
    """Choose the pretrained networks whose activations the heads learn from."""
    models = [name for name in MODELS if mentions(s.document, "model", name)]
    if not any("embedding" in _kinds(s, name) for name in models):
        return DEFAULT_NETWORK, "not used: no model takes an embedding"
    options = _networks(s)
    if not options:
        return DEFAULT_NETWORK, f"no weights ({next(iter(s.missing.values()))})"
    kind = "short sounds" if s.is_short else "music and longer sounds"
    value = f"{{choice: [{', '.join(options)}]}}" if options[1:] else options[0]
    return value, f"for {kind}"


def choose_start(s: Situation) -> Chosen:
    """Choose what the search tries first: known good configurations of the families compared.

    A parameter that is no range here is left out; so is a configuration of a model that is not
    compared, or whose values are outside the ranges.
    """
    tree, _ = read_tree(s.document)
    ranges = {setting.name: setting.range for setting, _ in open_settings(tree)}
    entries = []
    for name, family in FAMILIES.items():
        for values in family.start:
            if name in HEADS and (network := ranges.get("features.network")):
                values = {**values, "features.network": network.values()[0]}
            if _belongs(values, ranges):
                shown = (f"{k}: {write_scalar(v)}" for k, v in values.items() if k in ranges)
                entries.append("{" + ", ".join(shown) + "}")
    if not entries:
        return "[]", "no known good configuration for this model"
    reason = f"known good configurations first, {len(entries)} in all"
    return f"[{', '.join(entries)}]", reason


def _belongs(values: Mapping[str, Scalar], ranges: Mapping[str, Range]) -> bool:
    """Return True if all parameters of the model are ranges of a space, and accept the values."""
    known = {name: value for name, value in values.items() if name in ranges}
    if any(name.startswith("model") for name in values.keys() - known.keys()):
        return False
    try:
        for name, value in known.items():
            ranges[name].settle(value)
    except SpaceError:
        return False
    return True


def _networks(s: Situation) -> list[str]:
    """Return the choices of networks whose weights can all be had."""
    options = NETWORKS["short" if s.is_short else "long"]
    return [one for one in options if not set(re.findall(r"\w+", one)) & set(s.missing)]
