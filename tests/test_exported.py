"""What packages export: the lists are complete, sorted, and every name on them is there."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from tests.source_tree import PACKAGES, ROOT
from tuner.models import TABLE

LISTS = [
    path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if "\n__all__ = " in path.read_text()
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", LISTS, ids=module_name)
def test_exported_names_are_sorted_and_there(path: Path) -> None:
    module = importlib.import_module(module_name(path))
    names = list(module.__all__)
    # constants, then classes, then functions: the order of ruff's RUF022
    kinds = [(not n.isupper(), not n[0].isupper(), n) for n in names]
    assert kinds == sorted(kinds)
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(module, name)] == []


@pytest.mark.parametrize("path", [p for p in LISTS if p.name == "__init__.py"], ids=module_name)
def test_a_package_exports_what_it_imports_from_its_parts(path: Path) -> None:
    name = module_name(path)
    imported = {
        alias.asname or alias.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{name}.")
        for alias in node.names
    }
    own = {model.__name__ for model in TABLE} if name == "tuner.models" else set()
    assert imported - own <= set(importlib.import_module(name).__all__)
