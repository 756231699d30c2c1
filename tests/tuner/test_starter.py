"""``audio-tuner init``: a starter space with what auto.yaml would choose, and no warning."""

from __future__ import annotations

import itertools
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.facts import DataFacts
from pipelines.sources.tracks import Track
from tests.conftest import LEVELS, write_tones
from tests.tuner.test_auto import NETWORKS, Around, facts
from tuner.config import load, loads
from tuner.config.starter import WIDTH, starter
from tuner.init import main, name_of
from tuner.run import main as run

AUTO = Path("search_spaces/auto.yaml")
OWN = ("name", "data.root", "search.start")
FEW = DataFacts(
    tuple(Track.listed(f"{n}.wav", f"it's #{n % 5}: {{") for n in range(15)),
    (3.0,),
    (48_000,),
    (2e4,),
)
SITUATIONS = [
    pytest.param(replace(found, unreadable=unreadable), missing, id=f"{name} {len(missing)}")
    for (name, found, unreadable), missing in itertools.product(
        (
            ("sounds of 0.4 s", facts(0.4, 8_000, 600), ()),
            ("songs of 30 s", facts(30.0, 44_100, 800), ()),
            ("songs of 240 s, few", facts(240.0, 44_100, 40), ("a.wav: torn",)),
            ("15 tracks of 5 classes", FEW, ()),
        ),
        ((), NETWORKS),
    )
]  # fmt: skip


@pytest.mark.parametrize(("found", "missing"), SITUATIONS)
def test_the_starter_is_what_auto_chooses_and_warns_of_nothing(
    found: DataFacts, missing: tuple[str, ...]
) -> None:
    around = Around(found, missing)
    space = load(AUTO, ["name=mine"], around)
    text = starter(space, around, "mine.yaml")
    again = loads(text, around=around)
    assert again.warnings == ()
    # Files that cannot be read are the data's fault, whatever the settings.
    assert {one.path for one in again.remarks} == {one.path for one in space.remarks}
    assert {one.path for one in again.remarks} <= {"data.max_bad_share"}
    wanted, has = space.settings(), again.settings()
    differs = {name for name in wanted if wanted[name] != has.get(name)}
    # What was chosen and has no effect here may have its default instead.
    unused = {c.setting for c in space.choices if re.match("not used|no weights", c.reason)}
    assert differs <= unused
    assert again.start == space.start
    long = [
        line for line in text.splitlines() if line.lstrip().startswith("#") and len(line) > WIDTH
    ]
    assert not long
    for choice in space.choices:
        if choice.setting not in unused:  # the reason is there, however its lines are broken
            assert choice.reason in " ".join(re.sub(r"\n *#", " ", text).split())


def test_a_class_that_is_mostly_luck_leaves_the_split_auto() -> None:
    """With 15 tracks any split would be warned about, so the value is only in the comment."""
    around = Around(FEW)
    text = starter(load(AUTO, ["name=mine"], around), around, "mine.yaml")
    assert re.search(r"^  split: auto", text, re.MULTILINE)
    assert "Now {train: 0.7, val: 0.15, test: 0.15}: the class" in text


def test_init_writes_a_file_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_tones(tmp_path / "My music: 80's & more", per_class=8, seconds=0.5).parent
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(main, [str(data)])
    assert (found.exit_code, found.stderr) == (0, "")
    file = Path("My-music-80-s-more.yaml")
    assert found.stdout.splitlines()[-1] == f"  python -m tuner.run {file}"
    assert f"A study of {data}: 24 tracks in 3 classes" in file.read_text().replace("\n#", "")
    plan = CliRunner().invoke(run, [str(file), "--dry-run"])
    assert (plan.exit_code, plan.stderr) == (0, "")
    assert plan.stdout.splitlines()[0] == "study        My-music-80-s-more"
    before = file.read_text()
    monkeypatch.setattr("tuner.init.starter_of", lambda *_: before)  # another look takes seconds
    again = CliRunner().invoke(main, [str(data)])
    assert again.exit_code == 2
    assert again.stderr == f"error: {file} exists; write -o OTHER, or delete it\n"
    assert file.read_text() == before
    shown = CliRunner().invoke(main, [str(data), "-o", "-"])
    assert shown.stdout == before
    assert not Path("results").exists()


def test_init_writes_nothing_for_data_that_no_study_could_use(tmp_path: Path, tones: Path) -> None:
    (tmp_path / "data" / "techno").mkdir(parents=True)
    for number in range(4):
        shutil.copy(
            next(tones.parent.glob("*.wav")), tmp_path / "data" / "techno" / f"{number}.wav"
        )
    for data, words in (("nowhere", "nothing at"), ("data", "a single class")):
        found = CliRunner().invoke(main, [str(tmp_path / data), "-o", str(tmp_path / "out.yaml")])
        assert found.exit_code == 2
        assert words in found.stderr
        assert not (tmp_path / "out.yaml").exists()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("a/b/Über Musik", "ber-Musik"),
        ("music/manifest.csv", "music"),
        ("music/train.csv", "train"),
        ("s3://bucket/my%20music", "my-music"),
        ("...", "study"),
        ("x" * 80, "x" * 64),
    ],
)
def test_a_study_is_named_after_its_data(data: str, name: str) -> None:
    assert name_of(data) == name


def test_a_shipped_space_has_a_name_and_a_file_of_that_name_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = load(AUTO.absolute())
    monkeypatch.chdir(tmp_path)
    assert load(Path("auto")) == shipped
    Path("auto").write_text("{name: mine, model: {name: cnn}}")
    assert load(Path("auto")).name == "mine"


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    data = write_tones(tmp_path / "data", per_class=5, seconds=0.5)
    with data.open("a") as manifest:
        for number in range(5):
            (data.parent / f"text{number}.wav").write_text("no sound")
            manifest.write(f"text{number}.wav,{LEVELS[0]},nobody\n")
    found = CliRunner().invoke(main, [str(data), "-o", str(tmp_path / "a.yaml")])
    assert found.exit_code == 0
    assert "warning: 5 of 20 files looked at cannot be read: " in found.stderr
    assert len(re.findall(r"text\d\.wav: ", found.stderr)) == 3
    assert "; and 2 more; a run skips such files and lists all in rejects.csv" in found.stderr
    plan = CliRunner().invoke(
        run, [str(tmp_path / "a.yaml"), "--dry-run", "--storage", str(tmp_path / "r")]
    )
    assert "files        5 of 20 files looked at cannot be read: " in plan.stdout
