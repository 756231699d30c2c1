"""The small commands: their help, their words, and what they say to a wrong one."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tuner.__main__ import COMMANDS
from tuner.__main__ import main as audio_tuner
from tuner.config.__main__ import main as config
from tuner.config.__main__ import settings_page, space_schema
from tuner.weights import main as weights


def test_the_schema_and_the_page_are_printed() -> None:
    for words in ([], ["schema"]):
        assert json.loads(CliRunner().invoke(config, words).stdout) == space_schema()
    assert CliRunner().invoke(config, ["page"]).stdout == settings_page()


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_short_and_has_the_words(word: str) -> None:
    found = CliRunner().invoke(config, [word])
    assert found.exit_code == 0
    assert len(found.stdout.splitlines()) < 20
    assert "schema" in found.stdout
    assert "page" in found.stdout


def test_an_unknown_word_is_an_error() -> None:
    found = CliRunner().invoke(config, ["search_spaces/auto.yaml"])
    assert (found.exit_code, found.stdout) == (2, "")
    assert "'search_spaces/auto.yaml'" in found.stderr


def test_a_name_without_the_word_fetch_is_told_the_word() -> None:
    found = CliRunner().invoke(weights, ["nosuch"])
    assert found.exit_code == 2
    assert "No such command 'nosuch'; to fetch weights, write: fetch nosuch" in found.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_secret_in_a_wrong_word_is_not_told(name: str) -> None:
    """As when --data was forgotten."""
    wrong = "s3://KEY:SECRET@bucket/x"
    found = CliRunner().invoke(audio_tuner, [name, wrong, wrong, f"--{wrong}"])
    assert found.exit_code == 2
    assert "SECRET" not in found.output
