from __future__ import annotations

import time

import pytest

from benchmarks.paired import Rounds, compare, machine, summary


def test_sides_take_turns_and_warm_up_rounds_do_not_count() -> None:
    calls: list[str] = []
    sides = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    found = compare(sides, rounds=3, warmup=2, before=lambda: calls.append("-"))
    assert calls == ["-", "a", "-", "b"] * 5
    assert {side: len(times) for side, times in found.seconds.items()} == {"a": 3, "b": 3}


def test_times_are_those_of_the_calls() -> None:
    found = compare({"slow": lambda: time.sleep(0.02), "fast": lambda: None}, rounds=2)
    assert all(0.02 <= seconds < 1 for seconds in found.seconds["slow"])
    assert found.ratio("slow", "fast").median > 10


def test_time_is_what_the_given_clock_says() -> None:
    ticks = iter([1.0, 3.0, 10.0, 14.0])
    found = compare({"a": lambda: None}, rounds=2, warmup=0, clock=lambda: next(ticks))
    assert found.seconds == {"a": (2.0, 4.0)}


def test_a_ratio_is_the_median_over_pairs_of_one_round() -> None:
    # pairs 2, 3, 1: their median is 2, while the medians 5 and 4 would give 1.25
    rounds = Rounds({"a": (2.0, 12.0, 5.0), "b": (1.0, 4.0, 5.0)})
    ratio = rounds.ratio("a", "b")
    assert ratio.median == 2
    # tenths of 1, 2, 3 on a straight line between them
    assert ratio.p10 == pytest.approx(1.2)
    assert ratio.p90 == pytest.approx(2.8)
    assert rounds.median_ms() == {"a": 5000, "b": 4000}
    assert summary(rounds, [("a", "b")]) == {
        "rounds": 3,
        "median_ms": {"a": 5000, "b": 4000},
        "ratios": {"a / b": {"median": 2, "p10": 1.2, "p90": 2.8}},
    }


def test_one_round_has_a_ratio() -> None:
    ratio = Rounds({"a": (3.0,), "b": (2.0,)}).ratio("a", "b")
    assert (ratio.median, ratio.p10, ratio.p90) == (1.5, 1.5, 1.5)


def test_the_machine_is_described() -> None:
    found = machine(["numpy", "soundfile"])
    assert found["cpu"]["name"]
    assert list(found["packages"]) == ["numpy", "soundfile"]
