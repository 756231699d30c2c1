"""The README and the guides tell the truth: files, commands, links, what is built."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest

from tests.source_tree import BEGIN, END, PACKAGES, PAGE, ROOT, tree
from tuner.__main__ import COMMANDS as CONSOLE

README = ROOT / "README.md"
GUIDES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "deploy").glob("*.md")])
PAGES = [README, *GUIDES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
# Text that belongs to the project; tools' caches and what runs write lie elsewhere.
TEXTS = [
    path
    for place in (*PACKAGES, "search_spaces", "tests", "docs", "deploy", ".ci")
    for path in (ROOT / place).rglob("*")
    if path.suffix in {"", ".py", ".md", ".yaml", ".json", ".jinja"} and path.is_file()
] + [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
# Modules with a command of click's: those of the console command, and those beside it.
OF_MODULE = {
    place.removesuffix(":main").removesuffix(".__main__"): place for place, _ in CONSOLE.values()
} | {
    "tuner.config": "tuner.config.__main__:main",
    "pipelines.demo": "pipelines.demo.__main__:main",
}


def commands_in(text: str) -> list[list[str]]:
    """Every `python -m ...` and `audio-tuner ...`, up to what the shell would take as its end.

    A container of the image `audio-tuner:VERSION` runs its words as `python -m ...` does.
    """
    found = []
    pattern = r"(?<![\w/.-])(python -m|audio-tuner)(:[\d.]+)? ((?:[^`\n\\]|\\.)+)"
    for command, image, rest in re.findall(pattern, text):
        words = shlex.split(rest, comments=True)
        ends = [i for i, word in enumerate(words) if word in {">", "|", "||", "&", "&&", ";"}]
        command = "python -m" if image else command
        found.append([command, *(words[: ends[0]] if ends else words)])
    # not `audio-tuner` in prose
    return [words for words in found if re.match(r"[a-z]", " ".join(words[1:]))]


def read_as_command(words: list[str]) -> None:
    """Parse a line of a page as the command itself would; nothing is run."""
    command, name, *arguments = words
    name = name.rstrip(").,:;")
    if command == "python -m":
        if importlib.util.find_spec(name) is None:
            raise click.UsageError(f"no module {name}")
        if not (place := OF_MODULE.get(name)):
            return
        module, _, function = place.partition(":")
    else:
        module, function, arguments = "tuner.__main__", "main", [name, *arguments]
    # In prose: dots for more words, brackets round what may be left out, N for a number.
    words = [word.strip("[]") for word in arguments]
    arguments = [re.sub(r"^([A-Z]+|\.\.\.)$", "1", word) for word in words if word]
    parse(getattr(importlib.import_module(module), function), name, arguments)


def parse(
    command: click.Command, name: str, arguments: list[str], above: click.Context | None = None
) -> None:
    try:
        context = command.make_context(name, list(arguments), above)
    except click.MissingParameter as error:  # a page may name a command, or the words in question
        if arguments and not isinstance(error.param, click.Option):
            raise
        return
    except click.exceptions.Exit:  # --help
        return
    if isinstance(context.command, click.Group) and arguments:
        _, sub, rest = context.command.resolve_command(context, arguments)
        assert sub is not None
        parse(sub, arguments[0], rest, context)


COMMAND_LINES = [
    pytest.param(words, id=f"{page.name}: {' '.join(words)}")
    for page in (
        *PAGES,
        ROOT / "cluster.yaml",
        *sorted((ROOT / "search_spaces").glob("*.yaml")),
        *sorted((ROOT / "deploy").iterdir()),
    )
    for words in commands_in(page.read_text())
]


def test_tree_has_every_file_with_its_first_line() -> None:
    text = PAGE.read_text()
    shown = text.partition(BEGIN)[2].partition(END)[0]
    assert shown.splitlines() == tree().splitlines(), "run python -m tests.source_tree"


@pytest.mark.parametrize("package", PACKAGES)
def test_tree_lists_each_module_once(package: str) -> None:
    """Counted apart from the code that writes the tree."""
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    block = re.search(rf"^{package}/.*\n((?: .*\n?)*)", shown, re.MULTILINE)
    assert block is not None
    listed = sorted(re.findall(r"^ +(\w+\.py) ", block[1], re.MULTILINE))
    there = [p.name for p in (ROOT / package).rglob("*.py") if p.name != "__init__.py"]
    assert listed == sorted(there)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_says_its_job_in_its_first_line(path: Path) -> None:
    first = path.read_text().partition("\n")[0]
    assert re.match(r'"""[A-Z].{9,}', first), f"{path}: {first}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_is_longer_than_300_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_gap_is_left_to_fill_in(page: Path) -> None:
    assert "@@" not in page.read_text()


def test_files_that_the_tour_names_exist() -> None:
    text = PAGE.read_text().partition(BEGIN)[0]
    named = {name for name in re.findall(r"`([\w/]+\.py)`", text) if "<" not in name}
    there = ["/" + p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.py")]
    missing = [name for name in named if not any(path.endswith("/" + name) for path in there)]
    assert not missing


def test_readme_is_a_page() -> None:
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("words", COMMAND_LINES)
def test_command_line_could_be_run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["audio-tuner"])  # which the console command changes
    read_as_command(words)
    for name in words:
        if re.fullmatch(r"search_spaces/\w+\.yaml", name):
            assert (ROOT / name).is_file()


@pytest.mark.parametrize(
    "line",
    [
        "python -m tuner.run search_spaces/quickstart.yaml --no-such-option",
        "python -m tuner.run",  # counts as a name in prose
        "python -m tuner.run a.yaml b.yaml",
        "python -m tuner.runn a.yaml",
        "python -m tuner.weights get musicnn_msd",
        "audio-tuner predict MODEL",
        "audio-tuner runn a.yaml",
        "audio-tuner weights fetch --all",
        "audio-tuner build music --out x --layout heap",
    ],
)
def test_a_line_that_could_not_be_run_would_be_found(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["audio-tuner"])
    (words,) = commands_in(f"Type `{line}` now.")
    if line == "python -m tuner.run":
        read_as_command(words)
        return
    with pytest.raises(click.UsageError):
        read_as_command(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.is_file(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings
            }


def test_make_words_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    missing = " ".join(missing for _, missing in built_column().values())
    not_yet = set(re.findall(r"`make ([\w-]+)`", missing))
    assert not not_yet & targets
    for page in PAGES:
        asked = set(re.findall(r"(?:^|`)make ([\w-]+)", page.read_text(), re.MULTILINE))
        assert asked <= targets | not_yet


def built_column() -> dict[str, tuple[str, str]]:
    """The table of what is built: part -> (built, not yet)."""
    text = (ROOT / "docs" / "status.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (.*?) ?\| (.+?) \|$", text, re.MULTILINE)
    return {part: (built, missing) for part, built, missing in rows}


def test_changelog_has_a_section_for_what_is_new() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    headings = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert {"Unreleased", version[1]} & set(headings)
    assert re.search(r"^### (Added|Changed|Fixed|Removed)$", text, re.MULTILINE)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_text_is_clean(path: Path) -> None:
    text = path.read_text()
    trailing = [n for n, line in enumerate(text.splitlines(), 1) if line != line.rstrip()]
    assert not trailing, f"trailing spaces in lines {trailing}"
    assert text == "" or text.endswith("\n")
    # Spelt so that this file does not hold them.
    for place in ("/work" + "/", "/root" + "/", "/farm" + "/"):
        assert place not in text, f"a path of one machine: {place}"


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "images").iterdir()), ids=str)
def test_pictures_are_small_and_used(picture: Path) -> None:
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 300_000
    assert any(f"images/{picture.name}" in page.read_text() for page in PAGES)
