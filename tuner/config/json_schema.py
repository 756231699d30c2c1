"""JSON schema of space files, for completion and hover text in editors."""

from __future__ import annotations

from typing import Any

from tuner.config.ranges import KINDS, Numbers
from tuner.config.read_tree import RANGE_BLOCKS, RANGE_SETTINGS
from tuner.config.schema import Experiment


def space_schema() -> dict[str, Any]:
    """Make the schema (draft 2020-12): the experiment, with ranges wherever they are allowed."""
    schema = Experiment.model_json_schema()
    definitions = schema["$defs"]
    blocks = [
        name
        for block in RANGE_BLOCKS
        for name in names_of_definitions(schema["properties"][block])
    ]
    for name in dict.fromkeys(blocks):
        _allow_range(definitions[name]["properties"], list(definitions[name]["properties"]))
    _allow_range(definitions["Data"]["properties"], [path[-1] for path in RANGE_SETTINGS])
    _allow_range(schema["properties"], list(RANGE_BLOCKS))
    definitions["Range"] = {"anyOf": [_range(kind) for kind in KINDS]}
    schema["properties"]["$schema"] = {"type": "string", "description": "For editors; ignored."}
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **schema, "title": "Space file of the audio tuner"}


def _allow_range(properties: dict[str, Any], names: list[str]) -> None:
    """Allow a range in place of each of these settings."""
    for name in names:
        setting = dict(properties[name])
        kept = {k: setting.pop(k) for k in ("default", "description", "title") if k in setting}
        properties[name] = {"anyOf": [setting, {"$ref": "#/$defs/Range"}], **kept}


def names_of_definitions(setting: dict[str, Any]) -> list[str]:
    """Return the names of the definitions that a block can have."""
    references = [setting, *setting.get("oneOf", [])]
    return [r["$ref"].rpartition("/")[2] for r in references if "$ref" in r]


def _range(kind: str) -> dict[str, Any]:
    range_class = KINDS[kind]
    arguments: dict[str, Any] = {"type": "array", "minItems": 1}
    if issubclass(range_class, Numbers):
        size = range_class.form.count(",") + 1
        item = {"type": "integer" if range_class.whole else "number"}
        arguments = {"type": "array", "items": item, "minItems": size, "maxItems": size}
    return {
        "type": "object",
        "properties": {kind: {**arguments, "description": range_class.help}},
        "required": [kind],
        "additionalProperties": False,
    }
