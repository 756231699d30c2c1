"""The notebook in docs/: ``python -m tests.notebook`` runs it again and keeps what it shows."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.source_tree import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
TIMEOUT_SECONDS = 500  # of one cell


def cells_of(kind: str) -> list[str]:
    """Return the text of all cells of a kind: code or markdown."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def executed(folder: Path) -> NotebookNode:
    """Run the notebook in a folder, which gets its results; a cell that fails raises."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
    client = NotebookClient(
        notebook, timeout=TIMEOUT_SECONDS, kernel_name="python3", record_timing=False,
        coalesce_streams=True, resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    return client.execute()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        text = nbformat.writes(executed(Path(folder)))
        # The program names some files with all of their path.
        NOTEBOOK.write_text(text.replace(f"{folder}/", "") + "\n")
