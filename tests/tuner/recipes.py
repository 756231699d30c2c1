"""Recipes for tests, with settings named as in the blocks of a space file."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from tuner.training.recipe import Recipe


def vary(recipe: Recipe, **changes: Any) -> Recipe:
    """Return the recipe with some of its settings changed, whichever block they are in."""
    parts: dict[str, Any] = {}
    for part in fields(recipe):
        value = changes.pop(part.name, getattr(recipe, part.name))
        names = getattr(type(value), "model_fields", {})
        mine = {name: changes.pop(name) for name in names if name in changes}
        parts[part.name] = type(value)(**{**dict(value), **mine}) if mine else value
    assert not changes, f"no such settings: {changes}"
    return Recipe(**parts)


def make_recipe(**settings: Any) -> Recipe:
    """Return the default recipe with some settings changed."""
    return vary(Recipe(), **settings)
