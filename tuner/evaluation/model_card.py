"""The card of an exported model: a README with a YAML head, as model hubs read it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from pipelines.features.networks import selection
from pipelines.plain_text import code, for_markdown
from tuner.evaluation.page import table
from tuner.ledger.trust import scores_in_words
from tuner.models.settings import PRETRAINED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tuner.models import Model
    from tuner.training.bundle import Bundle
    from tuner.training.predictor import TrainedModel
    from tuner.training.profile import Profile

UNKNOWN = "not recorded"


class Origin(NamedTuple):
    """Published weights that a model contains or started from."""

    name: str
    licence: str
    trained_on: str


def card(model: TrainedModel, takes: str, files: Mapping[str, str]) -> str:
    """Return the card.

    Args:
        model: The model.
        takes: What its programs take, in words.
        files: What each exported file is, or why it is missing.
    """
    name = str(model.origin.get("study", "audio-classifier"))
    weights = sorted({one for part in model.members for one in _weights(part.bundle)})
    head = yaml.safe_dump(_head(name, model, weights), sort_keys=False, allow_unicode=True)
    lines = [f"---\n{head}---", f"# {for_markdown(name)}", *_body(model, takes, files, weights)]
    return "\n\n".join(lines) + "\n"


def _head(name: str, model: TrainedModel, weights: list[Origin]) -> dict[str, Any]:
    test = model.origin.get("test", {})
    profile = model.members[0].profile
    kinds = {"accuracy": "accuracy", "f1_macro": "f1"}
    measured = [
        {"type": kind, "name": key, "value": test[key]}
        for key, kind in kinds.items()
        if key in test
    ]
    result = {
        "task": {"type": "audio-classification"},
        "dataset": {"name": profile.source if profile else UNKNOWN, "type": "audio"},
        "metrics": measured,
    }
    return {
        "license": "unknown",  # for whoever publishes it to choose
        "pipeline_tag": "audio-classification",
        "library_name": "pytorch",
        "tags": ["audio", "audio-classification"],
        **({"base_model": [one.name for one in weights]} if weights else {}),
        "model-index": [{"name": name, "results": [result] if measured else []}],
    }


def _body(
    model: TrainedModel, takes: str, files: Mapping[str, str], weights: list[Origin]
) -> Iterator[str]:
    members, shares = model.members, model.weights
    profile, origin = members[0].profile, model.origin
    yield f"Says which of {len(model.labels)} classes an audio file belongs to: " + (
        ", ".join(map(code, model.labels)) + "."
    )
    if len(members) > 1:
        parts = (
            f"{for_markdown(one.bundle.model.name)} x {share:.2f}"
            for one, share in zip(members, shares, strict=True)
        )
        yield f"The weighted mean of {len(members)} models: {', '.join(parts)}."
    yield "## Score"
    yield _score(origin.get("test", {}), members[0].bundle.temperature)
    yield f"Leakage audit of its data: {for_markdown(str(origin.get('leakage', UNKNOWN)))}."
    yield "## Data"
    yield from _data(profile)
    yield "## Limits"
    yield "\n".join(f"- {one}" for one in _limits(profile, origin))
    yield "## Licences"
    yield "The licence of this model is for its publisher to choose (`license` in the head)."
    if weights:
        yield "It contains or started from published weights, whose licences bind it:"
        rows = [[code(name), *map(for_markdown, told)] for name, *told in weights]
        yield "\n".join(table(("weights", "licence", "trained on"), rows))
    else:
        yield "It contains no published weights."
    yield "## Use"
    described = [[code(name), for_markdown(what)] for name, what in files.items()]
    yield "\n".join(table(("file", "what it is"), described))
    yield f"The programs take {for_markdown(takes)}, `float32[n, samples]`, and return " + (
        "probabilities, `float32[n, classes]`, in the order of `labels` in `model.json`."
    )
    yield "```sh\npip install torch soundfile soxr\npython example.py FILE\n```"


def _score(test: Mapping[str, Any], temperature: float) -> str:
    if not {"accuracy", "accuracy_ci95", "f1_macro", "ci95", "tracks"} <= set(test):
        return f"Score: {UNKNOWN}."
    told = f"Scores of its only test: {scores_in_words(test, with_accuracy=True)}."
    if temperature != 1:
        told += (
            f" Its probabilities are calibrated on validation tracks (temperature "
            f"{temperature:.2f})."
        )
    return told


def _data(profile: Profile | None) -> Iterator[str]:
    if profile is None:
        yield f"Training data: {UNKNOWN}."
        return
    yield f"Trained on {code(profile.source)}, split {' and '.join(profile.learned)}; tracks:"
    splits = ("train", "val", "test")
    rows = [
        [code(name), *(counts.get(split, 0) for split in splits)]
        for name, counts in profile.classes.items()
    ]
    yield "\n".join(table(("class", *splits), rows))


def _limits(profile: Profile | None, origin: Mapping[str, Any]) -> Iterator[str]:
    yield "It knows no class but these: anything else is taken for one of them."
    if profile and (level := profile.level_db) and (band := profile.bandwidth_hz):
        yield (
            f"98 % of its training tracks have a level from {level.low:.0f} to {level.high:.0f} "
            f"dB from full scale, and reach {band.low / 1000:.1f} to {band.high / 1000:.1f} kHz."
        )
    if profile and (length := profile.seconds):
        yield f"98 % of its training tracks are {length.low:.1f} to {length.high:.1f} s long."
    yield (
        "On recordings of other people, with other equipment, expect lower scores; "
        "`python -m tuner.evaluate` of the program that made it measures that."
    )
    for one in map(str, origin.get("caveats", [])):
        yield for_markdown(one[:1].upper() + one[1:]) + "."


def _weights(bundle: Bundle) -> Iterator[Origin]:
    """Yield the published weights of one model."""
    if bundle.feature.kind == "embedding":
        for one in selection.parse_all(bundle.feature.networks):
            network = one.network
            yield Origin(network.name, network.licence, network.trained_on)
    if bundle.model.initial_weights is not None:
        yield _initial_weights(bundle.model)


def _initial_weights(model: Model) -> Origin:
    if (network := model.network) is not None:
        return Origin(network.name, network.licence, network.trained_on)
    if model.initial_weights == PRETRAINED:
        from tuner.models.published import published  # imports timm, which takes seconds

        rows, name = published(), f"{model.name}_{getattr(model, 'size', '')}"
        if row := rows.get(model.name) or rows.get(name):
            return Origin(row.name, row.licence, row.trained_on)
    return Origin("weights of a file", "unknown; ask whoever made the file", "unknown data")


def public_source(source: str) -> str:
    """Return the address of a data set for a card: the last part of a local path."""
    return source if "://" in source else re.split(r"[\\/]", source.rstrip("\\/"))[-1]
