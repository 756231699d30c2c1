"""The JSON schema of space files, for completion and hover text in editors."""

from __future__ import annotations

from typing import Any

from tuner.config.read_tree import RANGE_BLOCKS, RANGE_SETTINGS
from tuner.config.schema import Experiment

_NUMBER = {"type": "number"}
_WHOLE = {"type": "integer"}
_BOUNDS: dict[str, tuple[dict[str, str], int, str]] = {
    "uniform": (_NUMBER, 2, "[low, high]: any number between."),
    "log_uniform": (_NUMBER, 2, "[low, high]: any number between, even in the logarithm."),
    "integer": (_WHOLE, 2, "[low, high]: any whole number between, both ends too."),
    "log_integer": (_WHOLE, 2, "[low, high]: whole numbers, even in the logarithm."),
    "quantized": (_NUMBER, 3, "[low, high, step]: low, low + step, ... high."),
}
_LISTS = {
    "choice": "One of these; an alternative may be a block with ranges of its own.",
    "grid": "One of these; the grid algorithm visits all.",
}


def space_schema() -> dict[str, Any]:
    """Make the schema (draft 2020-12): the experiment, with ranges where they may stand."""
    schema = Experiment.model_json_schema()
    definitions = schema["$defs"]
    blocks = {name: _reference(schema["properties"][name]) for name in RANGE_BLOCKS}
    for name in {target for targets in blocks.values() for target in targets}:
        _open_up(definitions[name]["properties"], list(definitions[name]["properties"]))
    _open_up(definitions["Data"]["properties"], [path[-1] for path in RANGE_SETTINGS])
    _open_up(schema["properties"], list(RANGE_BLOCKS))
    definitions["Range"] = {"anyOf": [*_numeric_ranges(), *_list_ranges()]}
    schema["properties"]["$schema"] = {"type": "string", "description": "For editors; ignored."}
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **schema, "title": "Space file of the audio tuner"}


def _open_up(properties: dict[str, Any], names: list[str]) -> None:
    """Allow a range in place of each of these settings."""
    for name in names:
        setting = dict(properties[name])
        kept = {k: setting.pop(k) for k in ("default", "description", "title") if k in setting}
        properties[name] = {"anyOf": [setting, {"$ref": "#/$defs/Range"}], **kept}


def _reference(setting: dict[str, Any]) -> list[str]:
    """Names of the definitions that a block can have."""
    references = [setting, *setting.get("oneOf", [])]
    return [r["$ref"].rpartition("/")[2] for r in references if "$ref" in r]


def _numeric_ranges() -> list[dict[str, Any]]:
    return [
        _one_key(
            kind, {"type": "array", "items": item, "minItems": size, "maxItems": size}, description
        )
        for kind, (item, size, description) in _BOUNDS.items()
    ]


def _list_ranges() -> list[dict[str, Any]]:
    return [
        _one_key(kind, {"type": "array", "minItems": 1}, description)
        for kind, description in _LISTS.items()
    ]


def _one_key(kind: str, arguments: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {kind: {**arguments, "description": description}},
        "required": [kind],
        "additionalProperties": False,
    }
