"""The notebook in docs/: its code is that of the public API, and shows what it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

import tuner
from tests.notebook import NOTEBOOK, cells_of, executed
from tuner.api.model import Model
from tuner.api.study import Study

PUBLIC = {"tuner", "pathlib", "soundfile"}  # what a notebook may import
OBJECTS = {"study": Study, "again": Study, "model": Model}  # by the names that it gives them
MADE = {"name", "folder", "metric", "status", "labels"}  # by `__init__`
MAX_BYTES = 300_000


def test_it_uses_public_names_that_exist() -> None:
    for source in cells_of("code"):
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.module in PUBLIC
                if node.module == "tuner":
                    assert {one.name for one in node.names} <= set(tuner.__all__)
            elif isinstance(node, ast.Import):
                assert {one.name for one in node.names} <= PUBLIC
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = OBJECTS.get(node.value.id)
                assert not node.attr.startswith("_")
                assert owner is None or hasattr(owner, node.attr) or node.attr in MADE


def test_it_was_run_from_top_to_bottom_and_is_small() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [out for cell in code for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error"]
    assert not [out for out in outputs if out.get("name") == "stderr"]
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 2
    text = NOTEBOOK.read_text()
    assert len(text) < MAX_BYTES
    assert not re.search(r"/(tmp|home|root|work)/", text)


def test_its_links_lead_somewhere() -> None:
    for text in cells_of("markdown"):
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            assert (NOTEBOOK.parent / target).is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    notebook = executed(tmp_path)
    shown = "\n".join(
        out.get("text") or out["data"].get("text/plain", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for out in cell.outputs
    )
    assert "test        macro F1" in shown
    assert "\x1b" not in shown  # plain lines, no movements of a cursor
    for line in ("search   1/4", "confirm  1/1", "registered: demo version 1"):
        assert line in shown
    assert "house" in shown
    assert (tmp_path / "results/studies/notebook/report.html").is_file()
