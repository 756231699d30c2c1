"""The console command: the same commands as ``python -m``, listed at once, with completion."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from tuner.__main__ import COMMANDS, main

HEAVY = {"torch", "ray", "mlflow", "numpy", "pydantic"}


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **more}


def test_help_lists_every_command_within_a_moment_and_loads_none() -> None:
    code = (
        "import sys, time\nfrom tuner.__main__ import main\n"
        "try:\n    main(['--help'], 'audio-tuner')\nexcept SystemExit:\n"
        f"    print(sorted({HEAVY} & set(sys.modules)), time.process_time())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    loaded, _, seconds = found.splitlines()[-1].rpartition(" ")
    assert loaded == "[]"
    assert float(seconds) < 0.3  # of processor time, which other processes do not change much
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name} " in found
        assert summary in found


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_that_of_its_module(name: str) -> None:
    module, _, function = COMMANDS[name][0].partition(":")
    assert name in module.split(".")
    own = getattr(importlib.import_module(module), function)
    wanted = CliRunner().invoke(own, ["--help"], prog_name=f"audio-tuner {name}")
    shown = CliRunner().invoke(main, [name, "--help"], prog_name="audio-tuner")
    assert (wanted.exit_code, shown.exit_code) == (0, 0)
    assert shown.output == wanted.output


def test_a_command_sees_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the line that continues a study is right, whichever command began it."""
    seen: list[list[str]] = []

    @click.command()
    @click.argument("words", nargs=-1)
    def fake(words: tuple[str, ...]) -> None:
        seen.append(sys.argv[1:])

    monkeypatch.setattr("tuner.run.main", fake)
    monkeypatch.setattr(sys, "argv", ["audio-tuner", "run", "a b.yaml", "twice"])
    assert CliRunner().invoke(main, ["run", "a b.yaml", "twice"]).exit_code == 0
    assert seen == [["a b.yaml", "twice"]]


def test_a_wrong_word_is_answered_with_what_was_meant() -> None:
    found = CliRunner().invoke(main, ["predcit"])
    assert found.exit_code == 2
    assert "Did you mean 'predict'" in found.stderr


@pytest.mark.parametrize(
    ("words", "completed"),
    [("audio-tuner we", "plain,weights"), ("audio-tuner run --lea", "plain,--leaky-twin")],
)
def test_a_shell_completes_commands_and_options(words: str, completed: str) -> None:
    asked = environment(
        _AUDIO_TUNER_COMPLETE="bash_complete", COMP_WORDS=words,
        COMP_CWORD=str(len(words.split()) - 1),
    )  # fmt: skip
    found = subprocess.run(
        [sys.executable, "-m", "tuner"], capture_output=True, text=True, timeout=30, env=asked,
        check=True,
    )  # fmt: skip
    assert found.stdout.splitlines() == [completed]
