"""A cluster whose head dies in any phase: another one, and the same line, go on with the study."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from tests.bucket_world import Records, World, check, kinds

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


PHASES: dict[str, Callable[[Records, World], bool]] = {
    "features": lambda _, world: bool((world.storage / "features" / ".staging").names()),
    "search": lambda records, _: "epoch" in kinds(records),
    "confirmation": lambda records, _: "confirming" in kinds(records),
    "test": lambda records, _: "confirmed" in kinds(records),
    "registration": lambda records, _: "test" in kinds(records),
    "registered": lambda records, _: "registered" in kinds(records),
}


@pytest.mark.parametrize("phase", PHASES)
def test_in_each_phase(world: World, phase: str) -> None:
    with world.new_cluster() as first:
        world.submit(first)
        world.wait(first, lambda records: PHASES[phase](records, world))
        first.kill_node(0)
        before = world.records()
    with world.new_cluster() as second:
        world.submit(second)
        check(world, before, world.result(second))


@pytest.mark.parametrize("number", range(20))
def test_at_any_instant(world: World, number: int) -> None:
    seconds = float(np.random.default_rng(number).uniform(3.0, 40.0))
    with world.new_cluster() as first:
        world.submit(first)
        time.sleep(seconds)
        first.kill_node(0)
        before = world.records()
    with world.new_cluster() as second:
        world.submit(second)
        check(world, before, world.result(second))
