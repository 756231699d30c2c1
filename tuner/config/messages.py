"""What pydantic found wrong, in the words of a space file."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

from tuner.config.model_blocks import MODELS
from tuner.config.ranges import KINDS
from tuner.config.scalars import shorten, show
from tuner.config.schema import METRIC_MODES, Experiment, block_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_WORDS_FOR_BOUND = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "tuple_type": "a list such as [4, 5]",
    "finite_number": "a finite number",
    "model_type": "a block of settings",
    "model_attributes_type": "a block of settings",
}
# Settings that are a number or one word.
_ALSO_NUMBERS = {
    ("optim", "lr"): "a number such as 1e-3",
    ("train", "eval_crops"): "a number such as 5, or null",
}
_PATTERNS = {
    ("name",): "must be 1 to 64 letters, digits, -, _ or ., the first a letter or digit",
    ("search", "budget"): "must be a duration such as 90s, 30m or 2h",
}


def describe(error: Mapping[str, Any], path: tuple[str | int, ...], kind: str | None) -> str:
    """Say what is wrong with one setting and what was meant.

    Args:
        error: One item of pydantic's ``ValidationError.errors()``.
        path: Keys to the setting, without pydantic's union tags.
        kind: Kind of the range that the value was drawn from, or None for a plain value.
    """
    fault, value, context = error["type"], error["input"], error.get("ctx", {})
    keys = tuple(str(piece) for piece in path)
    if fault in ("missing", "union_tag_not_found"):
        return _missing(fault, keys, value)
    if fault == "union_tag_invalid":
        return f"{choose_from(str(context['tag']), MODELS)}; these models are built"
    if fault == "literal_error":
        return _not_listed(value, context["expected"], keys)
    if fault == "string_pattern_mismatch":
        return f"{_PATTERNS[keys]}; got {show(value)}"
    if fault in _WORDS_FOR_BOUND:
        limit, words = _WORDS_FOR_BOUND[fault]
        return f"must be {words} {_number(context[limit])}, got {show(value)}"
    if fault in ("string_too_short", "string_too_long"):
        return f"must have {context.get('min_length', 1)} or more characters, but not thousands"
    if fault in _WANTED:
        return f"must be {_WANTED[fault]}, got {show(value)}{_hint(fault, keys, value, kind)}"
    return f"{error['msg']}, got {show(value)}"


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """List up to ``count`` known words that are spelled like ``word``, the nearest first."""
    # Hostile words can be a megabyte long; matching them would take seconds.
    return difflib.get_close_matches(word[:64], list(known), n=count, cutoff=0.6)


def choose_from(word: str, known: Iterable[str]) -> str:
    """Say that ``word`` is unknown, what it may have been, and what there is."""
    listed = list(known)
    near = nearest(word, listed)
    hint = f"did you mean {' or '.join(f'`{n}`' for n in near)}? " if near else ""
    return f"unknown {shorten(repr(word))}; {hint}there {_are(listed)}"


def _number(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


def _are(listed: list[str]) -> str:
    return f"{'is' if len(listed) == 1 else 'are'} {', '.join(listed)}"


def unknown_key(keys: tuple[str, ...], parent_values: object) -> str:
    """Say that a key is unknown, and which keys its block has."""
    block = block_at(keys[:-1], parent_values)
    known = list(block.model_fields) if block else []
    near = nearest(keys[-1], known)
    if near:
        return f"unknown setting; did you mean {' or '.join(f'`{n}`' for n in near)}?"
    if keys[-1].isdigit():
        return f"unknown setting; a decimal comma? write 0.{keys[-1][:20]} with a point"
    elsewhere = [name for name, _ in _all_settings() if name.rpartition(".")[2] == keys[-1]]
    if elsewhere:
        return f"unknown setting here; did you mean `{elsewhere[0]}`?"
    return f"unknown setting; this block has {', '.join(known)}"


def _all_settings() -> Iterable[tuple[str, str]]:
    for name in Experiment.model_fields:
        yield name, name
        block = block_at((name,), {"name": "cnn"})
        for inner in block.model_fields if block else ():
            yield f"{name}.{inner}", inner


def _missing(fault: str, keys: tuple[str, ...], value: object) -> str:
    if fault == "union_tag_not_found":
        got = f"; got {show(value)}" if value else ""
        return f"`name` is missing{got}; write one of {', '.join(MODELS)}"
    example = {"name": "name: my-study", "model": "model: {name: cnn}"}.get(keys[-1])
    return f"`{keys[-1]}` is missing" + (f"; write for example `{example}`" if example else "")


def _not_listed(value: object, expected: str, keys: tuple[str, ...]) -> str:
    allowed = re.findall(r"'([^']*)'", expected) or re.findall(
        r"[\w.]+", expected.replace(" or ", " ")
    )
    if keys == ("data", "split"):
        shares = "{train: 0.7, val: 0.15, test: 0.15}"
        return f"got {show(value)}; write shares such as {shares}, {{column: fold}}, or `clip`"
    if keys in _ALSO_NUMBERS and isinstance(value, str):
        return f"{choose_from(value, allowed)}, or write {_ALSO_NUMBERS[keys]}"
    if isinstance(value, str):
        word = "metric " if keys == ("search", "metric") else ""
        near = METRIC_MODES if word else allowed
        return choose_from(value, near)
    return f"must be one of {', '.join(allowed)}; got {show(value)}"


def _hint(fault: str, keys: tuple[str, ...], value: object, kind: str | None) -> str:
    numeric = fault in ("int_type", "float_type")
    if kind in ("uniform", "log_uniform") and fault == "int_type":
        return f"; {kind} draws fractions, write {'log_' if kind[0] == 'l' else ''}integer"
    if isinstance(value, dict) and fault in _WANTED:
        near = nearest(next(iter(value), ""), KINDS, 1)
        found = f"did you mean `{near[0]}`? " if near else ""
        return f"; {found}a range is one of {', '.join(KINDS)}"
    if numeric and isinstance(value, str):
        return _number_hint(value)
    if value is None and "model" in fault:
        return "; indent its settings below it, or remove the line"
    if keys == ("search", "budget") and isinstance(value, int):
        return f"; write {value}s, {value}m or {value}h"
    if fault == "string_type" and isinstance(value, int | float):
        return f'; write "{shorten(str(value).lower())}" in quotes'
    return ""


def _number_hint(text: str) -> str:
    plain = text.replace("_", "").replace(" ", "")
    if re.fullmatch(r"[-+]?[0-9]+,[0-9]+", plain):
        return f"; write {plain.replace(',', '.')} with a point"
    if re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", plain):
        return f"; write {shorten(plain)} without quotes, blanks or underscores"
    return ""
