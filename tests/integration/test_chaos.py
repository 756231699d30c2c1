"""Processes of a study are killed at random instants, and it ends as if nothing had been."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.invariants import check, result
from tests.chaos.study import VICTIMS, Chaos

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

KILLS_PER_STUDY = 8
LONGEST_LIFE_SECONDS = 20.0


@pytest.fixture(scope="module")
def undisturbed(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a study that nobody disturbs."""
    chaos = Chaos(tones, tmp_path_factory.mktemp("undisturbed"))
    chaos.finish()
    return result(chaos)


def live(chaos: Chaos, victim: str, seconds: float) -> None:
    """Start the study, kill at an instant, and wait for the end of all that is left of it."""
    driver = chaos.start()
    try:
        driver.communicate(timeout=seconds)
        return  # it was done before
    except subprocess.TimeoutExpired:
        VICTIMS[victim](chaos, driver)
    said, _ = driver.communicate(timeout=240)  # a worker is replaced; Ray is started again once
    assert "Traceback" not in said, said
    # Agents of Ray that wait for its control store while they start notice its death late.
    chaos.wait_for_end(75 if victim in ("driver", "group") else 15)


def disturb(chaos: Chaos, seed: int, num_kills: int) -> list[str]:
    """Kill at seeded instants, one life after the other; return what was killed when."""
    draw, told = random.Random(seed), []
    for _ in range(num_kills):
        victim, seconds = draw.choice(list(VICTIMS)), draw.uniform(1.0, LONGEST_LIFE_SECONDS)
        told.append(f"{victim} after {seconds:.1f} s")
        live(chaos, victim, seconds)
    return told


@pytest.mark.parametrize("seed", range(100, 125))
def test_two_hundred_kills(
    seed: int, undisturbed: dict[str, Any], tones: Path, tmp_path: Path
) -> None:
    chaos = Chaos(tones, tmp_path)
    disturb(chaos, seed, KILLS_PER_STUDY)
    chaos.finish()
    check(chaos, undisturbed)
