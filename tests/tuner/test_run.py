"""The command line used wrong: one plain message, the right exit code, no traceback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.conftest import write_tones
from tuner.run import main

QUICKSTART = "search_spaces/quickstart.yaml"


@pytest.fixture
def wav(tones: Path) -> Path:
    return next(tones.parent.glob("*.wav"))


def run(*words: str | Path, storage: Path | None = None) -> Result:
    more = ["--storage", str(storage)] if storage else []
    return CliRunner().invoke(main, [*map(str, words), *more])


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; sys.argv = ['run', '--help']\n"
        "try:\n    import tuner.run; tuner.run.main()\n"
        "except SystemExit: print(sorted({'torch', 'ray', 'mlflow'} & set(sys.modules)),\n"
        "                         time.process_time(), sep='\\n')"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    loaded, seconds = found.stdout.splitlines()[-2:]
    assert loaded == "[]"
    assert float(seconds) < 1  # of processor time, which other processes do not change much


def missing(folder: Path, wav: Path) -> Path:
    return folder / "nowhere"


def empty(folder: Path, wav: Path) -> Path:
    return folder


def one_class(folder: Path, wav: Path) -> Path:
    (folder / "techno").mkdir()
    for number in range(4):
        shutil.copy(wav, folder / "techno" / f"{number}.wav")
    return folder


def one_group(folder: Path, wav: Path) -> Path:
    rows = [
        f"{label}{i}.wav,{label},{'x' if label == 'a' else i}" for label in "ab" for i in range(5)
    ]
    (folder / "manifest.csv").write_text("path,label,group\n" + "\n".join(rows))
    return folder / "manifest.csv"


def no_label(folder: Path, wav: Path) -> Path:
    (folder / "manifest.csv").write_text("path,genre\na.wav,x\n")
    return folder / "manifest.csv"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (missing, ["nothing at", "nowhere"]),
        (empty, ["no audio below"]),
        (one_class, ["a single class", "'techno'"]),
        (one_group, ["fewer than 3 groups: a", "too few"]),
        (no_label, ["no column label", "found path, genre"]),
    ],
)
def test_unusable_data_is_refused_before_anything_starts(
    make, words, tmp_path: Path, wav: Path
) -> None:
    (tmp_path / "data").mkdir()
    source = make(tmp_path / "data", wav)
    for more in ((), ("--dry-run",)):
        found = run(QUICKSTART, "--data", source, *more, storage=tmp_path / "results")
        assert found.exit_code == 2
        for word in words:
            assert word in found.stderr
        assert "Traceback" not in found.output
        assert found.stdout == ""
        assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("{column: nocol}", "no column 'nocol'; it has fold"),
        ("{column: fold}", "unknown value '1' in column 'fold', expected train, val or test"),
        ("{column: fold, val: [2], test: [99]}",
         "no track has '99' in the column 'fold'; it has '1' (2), '2' (2), '3' (2)"),
        ("{column: fold, val: [2, 9], test: [3]}", "no track has '9'"),
    ],
)  # fmt: skip
def test_the_plan_refuses_a_split_by_a_column_that_does_not_fit(
    split: str, words: str, tmp_path: Path
) -> None:
    rows = [f"{label}{fold}.wav,{label},{fold}" for label in "ab" for fold in (1, 2, 3)]
    (tmp_path / "manifest.csv").write_text("path,label,fold\n" + "\n".join(rows))
    words_asked = ["--data", str(tmp_path), "--set", f"data.split={split}", "--dry-run"]
    found = run(QUICKSTART, *words_asked, storage=tmp_path / "results")
    assert found.exit_code == 2
    assert words in found.stderr


def test_the_plan_names_the_class_with_too_few_groups(tmp_path: Path, wav: Path) -> None:
    rows = [f"{label}{i}.wav,{label},{label if label == 'a' else i}"
            for label in "ab" for i in range(5)]  # fmt: skip
    (tmp_path / "manifest.csv").write_text("path,label,artist\n" + "\n".join(rows))
    for row in rows:
        shutil.copy(wav, tmp_path / row.partition(",")[0])
    found = run("search_spaces/auto.yaml", "--data", tmp_path, "--dry-run", storage=tmp_path / "r")
    assert found.exit_code == 2
    assert "1 class has fewer than 3 groups: a" in found.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nothere.yaml"], "nothere.yaml:1:1: cannot read the file"),
        (["nothere"], "the shipped files are all, auto, "),
        (["search_spaces"], "write auto --data search_spaces"),
        (
            [QUICKSTART, "--set", "train.epoch=3"],
            "error: --set train.epoch: no such setting; did you mean `train.epochs`?\n",
        ),
        ([QUICKSTART, "--data", ""], "error: --data: must not be empty\n"),
        ([QUICKSTART, "--set", "optim.lr={uniform: [1, 0.1]}"], "low below high"),
        ([QUICKSTART, "--set", "model={name: resnet_18}"], "did you mean `resnet18`"),
        ([QUICKSTART, "--budget", "soon"], "--budget: must be a duration"),
        ([QUICKSTART, "--trails", "3"], "Did you mean '--trials'"),
        ([QUICKSTART, "--trials", "0"], "--trials"),
        ([QUICKSTART, "--name", "../x"], "name"),
        ([QUICKSTART, "--leaky-twin", "--set", "data.split=clip"], "this study splits by clip"),
        (
            [QUICKSTART, "--storage", "ftp://bucket/x"],
            "write a folder, or s3://, gs:// or abfs://",
        ),
        ([QUICKSTART, "--resume", "--storage", "/nowhere"], "there is no study 'quickstart'"),
    ],
)
def test_wrong_words_are_answered_with_what_was_meant(words: list[str], expected: str) -> None:
    start = time.process_time()  # unlike wall time, the same on a busy machine
    found = run(*words)
    assert found.exit_code == 2
    assert expected in found.stderr
    assert "Traceback" not in found.output
    assert time.process_time() - start < 2


def test_dry_run_shows_the_plan_and_starts_nothing(tmp_path: Path) -> None:
    found = run(QUICKSTART, "--dry-run", "--trials", "5", storage=tmp_path / "results")
    assert found.exit_code == 0
    assert "5 by tpe, asha" in found.stdout
    assert found.stdout.count("optim.lr") or found.stdout.count("lr=")
    assert not (tmp_path / "results").exists()


def test_printed_configuration_is_the_resolved_file(tmp_path: Path) -> None:
    from tuner.config import load

    found = run(QUICKSTART, "--print-config", "--set", "train.epochs=3")
    again = tmp_path / "again.yaml"
    again.write_text(found.stdout)
    assert load(again) == load(Path(QUICKSTART), ["train.epochs=3"])


def test_storage_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    data = write_tones(tmp_path / "data", per_class=4, seconds=0.1)
    found = run(QUICKSTART, "--data", data, storage=tmp_path / "file")
    assert found.exit_code == 1
    assert str(tmp_path / "file") in found.stderr
    assert "Traceback" not in found.output


def test_a_study_in_other_hands_is_refused(tmp_path: Path) -> None:
    from pipelines.storage import Folder
    from tuner.errors import UsageError
    from tuner.ledger.locate import locked

    study = Folder(tmp_path / "s")
    running_here = f"'s' is running in process {os.getpid()} on {socket.gethostname()} since 2"
    with (
        locked(study),
        pytest.raises(UsageError, match=running_here),
        locked(study),
    ):
        pass
    (tmp_path / "s" / ".holder").write_text("process 1 on a killed machine since 1970")
    with locked(study), pytest.raises(UsageError, match=running_here), locked(study):
        pass


@pytest.mark.parametrize(
    ("ended", "words", "is_shown"),
    [
        ([("study_end", "completed")], [], True),
        ([("study_end", "failed")], [], False),
        ([("study_end", "completed"), ("study_end", "interrupted")], [], False),
        ([("study_end", "completed")], ["--leaky-twin"], False),  # which is to be trained yet
        ([("leaky_twin", ""), ("study_end", "completed")], ["--leaky-twin"], True),
    ],
)
def test_a_finished_study_needs_neither_its_weights_nor_its_data(
    ended: list[tuple[str, str]], words: list[str], is_shown: bool, tmp_path: Path, monkeypatch
) -> None:
    from pipelines.errors import UserError
    from pipelines.storage import Folder
    from tuner.config import load
    from tuner.ledger.journal import Ledger, StudyPaths

    def carry_out(*_) -> None:
        raise UserError("the result is shown")

    monkeypatch.setattr("tuner.study.run.carry_out", carry_out)
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ledger = Ledger(StudyPaths(Folder(tmp_path), "pretrained", "").folder)
    settings = load(Path("search_spaces/pretrained.yaml"), ["data.root=/gone"]).settings()
    ledger.append("study", study="pretrained", settings=settings)
    for kind, status in ended:
        ledger.append(kind, **({"status": status} if status else {}))
    ledger.close()
    space = "search_spaces/pretrained.yaml"
    found = run(space, "--data", "/gone", "--resume", *words, storage=tmp_path)
    assert ("the result is shown" in found.stderr) == is_shown
    assert ("nothing at /gone" in found.stderr) != is_shown


def test_a_study_from_before_a_setting_existed_goes_on_with_its_default(tmp_path: Path) -> None:
    from contextlib import closing

    from pipelines.storage import Folder
    from tuner.config import loads
    from tuner.errors import StudyExistsError
    from tuner.ledger.journal import Ledger, StudyPaths
    from tuner.study.begin import refuse_changes

    text = "name: old\nmodel: {name: cnn}\nsearch: {trials: 3}\n"
    settings = loads(text).settings()
    del settings["features.network"]
    paths = StudyPaths(Folder(tmp_path), "old", tmp_path)
    with closing(Ledger(paths.folder)) as ledger:
        ledger.append("study", study="old", source=text, settings=settings, config={}, data="")
        refuse_changes(loads(text), list(ledger.records()))
        other = loads(text + "features: {network: speech}\n")
        with pytest.raises(StudyExistsError, match=r"features\.network: it has musicnn_msd"):
            refuse_changes(other, list(ledger.records()))
