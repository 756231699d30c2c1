"""Lists of exported names are sorted, and every name on them exists (ruff: none is missing)."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.source_tree import PACKAGES, ROOT

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
