"""Processes of a study are killed at random instants, and it ends as if nothing had been."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.invariants import check, result
from tests.chaos.study import VICTIMS, Chaos

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

KILLS_PER_STUDY = 20
LONGEST_PAUSE_SECONDS = 12.0


@pytest.fixture(scope="module")
def undisturbed(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a study that nobody disturbs."""
    chaos = Chaos(tones, tmp_path_factory.mktemp("undisturbed"))
    chaos.finish()
    return result(chaos)


def live(chaos: Chaos, draw: random.Random, num_kills: int) -> int:
    """Run the study to an end of any kind, killing on the way; return the number of kills."""
    driver, kills, said = chaos.start(), 0, ""
    # A trial whose worker dies twice in one run has failed, as it would without anybody killing.
    victims = list(VICTIMS)
    longest = draw.uniform(1.0, LONGEST_PAUSE_SECONDS)
    while True:
        pause = draw.uniform(0.2, longest) if kills < num_kills else 240.0
        try:
            said, _ = driver.communicate(timeout=pause)
            break
        except subprocess.TimeoutExpired:
            assert kills < num_kills, "the study does not end"
        victim = draw.choice(victims)
        if VICTIMS[victim](chaos, driver):
            kills += 1
            if victim == "worker":
                victims.remove(victim)
    assert "Traceback" not in said, said
    return kills


@pytest.mark.parametrize("seed", range(100, 110))
def test_two_hundred_kills(
    seed: int, undisturbed: dict[str, Any], tones: Path, tmp_path: Path
) -> None:
    chaos = Chaos(tones, tmp_path)
    draw, kills = random.Random(seed), 0
    while kills < KILLS_PER_STUDY:
        kills += live(chaos, draw, KILLS_PER_STUDY - kills)
    chaos.finish()
    # Agents of Ray that wait for its control store while they start notice its death late.
    chaos.wait_for_end(75)
    check(chaos, undisturbed)
