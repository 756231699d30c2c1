"""The tree of files in docs/architecture.md, derived from the files themselves.

``python -m tests.source_tree`` writes it there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tree -->\n```\n", "\n```\n<!-- end of tree -->"
COLUMN = 30  # where the descriptions begin
INDENT = "  "

# Packages whose files are listed one by one.
PACKAGES = ("pipelines", "tuner")
# Folders with one line each, and files that cannot say in a comment what they are.
NOTES = {
    "CHANGELOG.md": "What changed, by version.",
    "CONTRIBUTING.md": "House rules, and how a change is checked.",
    "constraints.txt": "The exact versions of all packages that are installed.",
    "benchmarks": "Paired measurements against peers and limits; `make bench`.",
    "docs": "User guide, your own audio, decisions with their reasons, benchmarks, pictures.",
    "pyproject.toml": "Dependencies, tool settings, import contracts.",
    "LICENSE": "The MIT licence.",
    "README.md": "What it is, the two commands, your own audio, how data flows.",
    "search_spaces/space.schema.json": "The JSON schema of space files, for editors; generated.",
    "tests": "Mirrors the packages; tests/integration starts clusters, servers and a browser.",
    "tuner/report/page.css": "The style of the report's page: a telephone, a screen, and paper.",
    "tuner/report/page.html.jinja": "The report's page: headline, caveats, commands.",
    "tuner/report/page_classes.html.jinja": "Part of the page: mistakes to hear, and the classes.",
    "tuner/report/page_search.html.jinja": "Part of the page: the search, and its settings.",
    "tuner/report/page_trust.html.jinja": "Part of the page: trust, and how it was made.",
}
# Contents of a working copy besides the project: written by the program, its tools or its user.
NOT_OURS = ("results", "demo-data", "build", "dist")


def tree() -> str:
    """One line for each file, in the order in which they are listed on disk."""
    lines = []
    for path in _visible(ROOT):
        name = path.relative_to(ROOT).as_posix()
        if path.is_file() or name in NOTES:
            lines.append(_line(path, 0))
        elif name in PACKAGES or any(path.glob("*.yaml")):
            lines += _listed(path, 0)
    return "\n".join(lines)


def _listed(folder: Path, depth: int) -> Iterator[str]:
    """A folder's own line and those of all that is in it, packages after files."""
    yield _line(folder, depth)
    inside = [path for path in _visible(folder) if path.name != "__init__.py"]
    for path in sorted(inside, key=lambda path: (path.is_dir(), path.name)):
        if path.is_dir():
            yield from _listed(path, depth + 1)
        else:
            yield _line(path, depth + 1)


def _visible(folder: Path) -> list[Path]:
    """List what belongs to the project, files before folders."""
    found = [
        path
        for path in folder.iterdir()
        if not path.name.startswith((".", "__pycache__"))
        and not path.name.endswith((".egg-info", ".pyc"))
        and not (folder == ROOT and path.name in NOT_OURS)
    ]
    return sorted(found, key=lambda path: (path.is_dir(), path.name.lower()))


def _line(path: Path, depth: int) -> str:
    name = INDENT * depth + path.name + ("/" if path.is_dir() else "")
    return f"{name:<{COLUMN}}{describe(path)}".rstrip()


def describe(path: Path) -> str:
    """Return the description in the first line of a file, or of a package's ``__init__``."""
    if note := NOTES.get(path.relative_to(ROOT).as_posix()):
        return note
    if path.is_dir():
        path = path / "__init__.py"
        if not path.exists():
            return "One file is one study: what is searched, and how."
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
    comments = [line for line in path.read_text().splitlines() if line.startswith("# ")]
    said = next((line for line in comments if "yaml-language-server" not in line), "")
    return said.removeprefix("# ")


def main() -> None:
    """Write the tree between its two marks."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{PAGE} has no place for the tree, between two marks")
    PAGE.write_text(before + BEGIN + tree() + END + after)


if __name__ == "__main__":
    main()
