"""Messages for pydantic's errors, in the terms of a space file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pipelines.plain_text import shorten
from tuner.config.ranges import KINDS
from tuner.config.schema import Experiment, block_at
from tuner.config.searching import METRIC_MODES, Cost
from tuner.config.yaml_text import write_scalar
from tuner.models import MODELS

_BOUNDS = {
    "greater_than": "above",
    "greater_than_equal": "at least",
    "less_than": "below",
    "less_than_equal": "at most",
}
_EXPECTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list such as [4, 5]",
    "finite_number": "a finite number",
    "dict_type": "a block of settings",
    "model_type": "a block of settings",
    "model_attributes_type": "a block of settings",
}
# Settings that take a number or a word.
_ALSO_NUMBERS = {
    ("optim", "lr"): "a number such as 1e-3",
    ("train", "eval_crops"): "a number such as 5, or null",
}
_SLUG = "must be 1 to 64 letters, digits, -, _ or ., the first a letter or digit"
_PATTERNS = {
    ("name",): _SLUG,
    ("registry", "model"): _SLUG,
    ("search", "budget"): "must be a duration such as 90s, 30m or 2h",
    ("search", "plug"): "must be written as module:name, such as my_samplers:Mine",
}
_FORMS = {
    ("search", "start"): "a list such as [{model: cnn}]",
    ("search", "metric"): "one metric, or a metric and a cost such as [val_f1_macro, latency_ms]",
    ("search", "at_most"): "a block of limits such as {size_mb: 10}",
    ("model",): "a block of settings such as {name: cnn}",
}
_EXAMPLES = {"name": "name: my-study", "model": "model: {name: cnn}"}


def describe(error: Mapping[str, Any], path: tuple[str | int, ...], kind: str | None) -> str:
    """Describe what is wrong with one setting and what to write instead.

    Args:
        error: One item of pydantic's ``ValidationError.errors()``.
        path: Keys that lead to the setting, without pydantic's union tags.
        kind: Kind of the range that the value was drawn from, or None for a plain value.
    """
    fault, context = error["type"], error.get("ctx", {})
    value = context.get("item", error["input"])  # of a list, the item that is wrong
    keys = tuple(map(str, path))
    if fault == "missing":
        example = _EXAMPLES.get(keys[-1])
        return f"missing `{keys[-1]}`" + (f"; write for example `{example}`" if example else "")
    if fault == "union_tag_not_found":
        got = f", got {show(value)}" if value else ""
        return f"missing `name`{got}; write one of {', '.join(MODELS)}"
    if fault == "union_tag_invalid":
        return choose_from(str(context["tag"]), MODELS)
    if fault == "literal_error":
        return _not_listed(value, context["expected"], keys)
    if fault == "string_pattern_mismatch":
        return f"{_PATTERNS[keys]}, got {show(value)}"
    if fault in _BOUNDS:
        (bound,) = context.values()
        shown = int(bound) if bound == int(bound) else bound
        return f"must be {_BOUNDS[fault]} {shown}, got {show(value)}"
    if fault in ("string_too_short", "string_too_long"):
        return "must not be empty" if fault == "string_too_short" else "is too long"
    if fault in _EXPECTED:
        form = _FORMS.get(keys, _EXPECTED[fault])
        return f"must be {form}, got {show(value)}{_hint(fault, keys, value, kind)}"
    return f"{error['msg']}, got {show(value)}"


def unknown_key(keys: tuple[str, ...], parent_values: object) -> str:
    """Report an unknown key, with the key that was probably meant."""
    block = block_at(keys[:-1], parent_values)
    known = list(block.model_fields) if block else []
    if near := nearest(keys[-1], known):
        return f"no such setting; did you mean {_or(['.'.join((*keys[:-1], k)) for k in near])}?"
    if keys[-1].isdigit():
        return f"no such setting; a decimal comma? write 0.{keys[-1][:20]} with a point"
    elsewhere = [name for name in _all_settings() if name.rpartition(".")[2] == keys[-1]]
    if elsewhere:
        return f"no such setting here; did you mean `{elsewhere[0]}`?"
    return f"no such setting; this block has {', '.join(known)}"


def _all_settings() -> Iterable[str]:
    for name in Experiment.model_fields:
        yield name
        block = block_at((name,), {"name": "cnn"})
        yield from (f"{name}.{inner}" for inner in (block.model_fields if block else ()))


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """List up to ``count`` known words that are spelled like ``word``, the nearest first."""
    # Hostile words can be a megabyte long; matching them would take seconds.
    return difflib.get_close_matches(word[:64], list(known), n=count, cutoff=0.6)


def choose_from(word: str, known: Iterable[str]) -> str:
    """Report an unknown word, with the words that were probably meant and all known ones."""
    near = nearest(word, known := list(known))
    hint = f"did you mean {_or(near)}? " if near else ""
    return f"unknown {shorten(repr(word))}; {hint}expected one of {', '.join(known)}"


def _or(words: list[str]) -> str:
    return " or ".join(f"`{word}`" for word in words)


def show(value: object) -> str:
    """Write a value for a message, as a space file would."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, str):
        return f"the string {shorten(repr(value))}"
    if isinstance(value, dict):
        return f"a block with {shorten(', '.join(map(str, value)))}" if value else "an empty block"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return shorten(write_scalar(value))


def _not_listed(value: object, expected: str, keys: tuple[str, ...]) -> str:
    allowed = re.findall(r"'([^']*)'", expected) or re.findall(r"[\d.]+", expected)
    if keys == ("data", "split"):
        shares = "{train: 0.7, val: 0.15, test: 0.15}"
        return f"expected shares such as {shares}, {{column: fold}}, or `clip`, got {show(value)}"
    if not isinstance(value, str):
        form = f"{_FORMS[keys]}, of" if keys == ("search", "metric") else "one of"
        return f"must be {form} {', '.join(allowed)}, got {show(value)}"
    if keys in (("search", "metric"), ("search", "metric", "0")) and value in get_args(Cost):
        return f"{value} cannot decide alone or first; write [val_f1_macro, {value}]"
    if keys in _ALSO_NUMBERS:
        return f"{choose_from(value, allowed)}, or {_ALSO_NUMBERS[keys]}"
    return choose_from(value, METRIC_MODES if keys == ("search", "metric") else allowed)


def _hint(fault: str, keys: tuple[str, ...], value: object, kind: str | None) -> str:
    if kind in ("uniform", "log_uniform") and fault == "int_type":
        return f"; {kind} draws fractions, write {kind.replace('uniform', 'integer')}"
    if keys == ("model",) and value in [*MODELS]:
        return f"; write `model: {{name: {value}}}`, or --set 'model={{name: {value}}}'"
    if keys == ("search", "start"):
        return ""
    if isinstance(value, dict):
        near = nearest(next(iter(value), ""), KINDS, 1)
        found = f"did you mean `{near[0]}`? " if near else ""
        return f"; {found}a range is one of {', '.join(KINDS)}"
    if fault in ("int_type", "float_type") and isinstance(value, str):
        return "; it cannot be auto" if value == "auto" else _number_hint(value)
    if value is None and "model" in fault:
        return "; indent its settings below it, or remove the line"
    if keys == ("search", "budget") and isinstance(value, int):
        return f"; write {value}s, {value}m or {value}h"
    if fault == "string_type" and isinstance(value, int | float):
        return f'; write "{shorten(write_scalar(value))}" in quotes'
    return ""


def _number_hint(text: str) -> str:
    plain = text.replace("_", "").replace(" ", "")
    if re.fullmatch(r"[-+]?[0-9]+,[0-9]+", plain):
        return f"; write {plain.replace(',', '.')} with a point"
    if re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", plain):
        return f"; write {shorten(plain)} without quotes, spaces or underscores"
    return ""
