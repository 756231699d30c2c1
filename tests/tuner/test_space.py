"""Ranges: both ends belong, every value of a discrete range is reached, errors carry values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.config.ranges import (
    Choice,
    Grid,
    Integer,
    LogInteger,
    LogUniform,
    Quantized,
    Uniform,
    make_range,
)
from tuner.errors import SpaceError

DISCRETE = [
    (Integer(2, 5), [2, 3, 4, 5]),
    (LogInteger(1, 4), [1, 2, 3, 4]),
    (Quantized(512, 2048, 512), [512, 1024, 1536, 2048]),
    (Quantized(0.1, 0.5, 0.1), [0.1, 0.2, 0.3, 0.4, 0.5]),
    (Choice((None, True, 3, 0.5, "avg")), [None, True, 3, 0.5, "avg"]),
    (Grid((64, 128)), [64, 128]),
]


@pytest.mark.parametrize(("range_", "listed"), DISCRETE, ids=lambda x: str(x)[:30])
def test_discrete_ranges_list_and_reach_every_value(range_, listed):
    rng = np.random.default_rng(0)
    drawn = {repr(range_.sample(rng)) for _ in range(400)}
    assert list(range_.values()) == listed
    assert range_.num_values == len(listed)
    assert drawn == {repr(value) for value in listed}  # 3, 3.0 and True have different reprs


@settings(deadline=None)
@given(st.integers(-(2**40), 2**40), st.integers(1, 2), st.integers(0, 2**32))
def test_both_ends_of_integers_are_reached(low, width, seed):
    range_ = Integer(low, low + width)
    rng = np.random.default_rng(seed)
    assert {range_.sample(rng) for _ in range(200)} == set(range(low, low + width + 1))


@settings(deadline=None)
@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(0, 2**32))
def test_log_integers_stay_inside(low, width, seed):
    range_ = LogInteger(low, low + width)
    rng = np.random.default_rng(seed)
    assert all(low <= range_.sample(rng) <= low + width for _ in range(50))


def test_log_uniform_spreads_evenly_in_the_logarithm():
    # Closed form: log10 of the draws is uniform on [-4, -2], with mean -3 and variance 4 / 12.
    rng = np.random.default_rng(0)
    logs = np.log10([LogUniform(1e-4, 1e-2).sample(rng) for _ in range(20_000)])
    assert logs.mean() == pytest.approx(-3, abs=0.02)
    assert logs.var() == pytest.approx(4 / 12, rel=0.03)
    assert logs.min() >= -4
    assert logs.max() <= -2


def test_log_integer_follows_the_width_of_each_number():
    # Closed form: n has the share log((n + 1/2) / (n - 1/2)) of log(high + 1/2) - log(low - 1/2).
    rng = np.random.default_rng(0)
    drawn = np.array([LogInteger(1, 8).sample(rng) for _ in range(40_000)])
    for n in range(1, 9):
        share = math.log((n + 0.5) / (n - 0.5)) / math.log(8.5 / 0.5)
        assert (drawn == n).mean() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Uniform(1.0, 0.5), "low below high, got [1, 0.5]"),
        (lambda: Uniform(2.0, 2.0), "write 2 without a range"),
        (lambda: Uniform(-1e308, 1e308), "too wide"),
        (lambda: LogUniform(0.0, 1.0), "above 0, got 0"),
        (lambda: LogInteger(0, 3), "above 0, got 0"),
        (lambda: Integer(1, 2**63), "64-bit"),
        (lambda: make_range("integer", [1.5, 3]), "integers, got 1.5"),
        (lambda: Quantized(0, 1, 0), "step above 0, got 0"),
        (
            lambda: Quantized(0, 1, 0.3),
            "do not reach 1 (both ends belong to a range); write 0.9 or",
        ),
        (lambda: Quantized(0, 1, 1e-9), "1e+09 values; at most 1000000 allowed"),
        (lambda: Choice(()), "at least one option"),
        (lambda: Choice((1, 2, 1)), "lists 1 twice"),
        (lambda: Grid(("a", "a")), 'lists "a" twice'),
    ],
)
def test_impossible_ranges_say_what_was_given(make, words):
    with pytest.raises(SpaceError) as caught:
        make()
    assert words in str(caught.value)


def test_true_and_one_are_different_options():
    assert Choice((1, True)).settle(True) is True
    assert Choice((True, 1)).settle(1) == 1
    assert Choice((True, 1)).settle(1) is not True


@pytest.mark.parametrize(
    ("range_", "value", "own"),
    [
        (Quantized(0.1, 0.5, 0.1), 0.1 + 0.2, 0.3),  # 0.30000000000000004, as samplers compute it
        (Quantized(512, 2048, 512), 1024.0, 1024),
        (Integer(0, 9), 3.0, 3),
        (Uniform(0.0, 1.0), 1, 1.0),
        (LogUniform(1e-4, 1e-2), np.float64(1e-3), 1e-3),
        (Choice((16, 32)), 32, 32),
    ],
)
def test_settle_gives_the_ranges_own_value(range_, value, own):
    settled = range_.settle(value)
    assert (settled, type(settled)) == (own, type(own))


@pytest.mark.parametrize(
    ("range_", "value"),
    [
        (Uniform(0.0, 1.0), 1.0001),
        (Uniform(0.0, 1.0), True),
        (Uniform(0.0, 1.0), "0.5"),
        (Uniform(0.0, 1.0), math.nan),
        (Integer(0, 9), 3.5),
        (Integer(0, 9), 10**400),
        (Quantized(0.1, 0.5, 0.1), 0.25),
        (Choice((16, 32)), 48),
        (Choice((16, 32)), None),
    ],
)
def test_settle_refuses_what_does_not_belong(range_, value):
    with pytest.raises(SpaceError, match="is not in"):
        range_.settle(value)


def test_continuous_ranges_have_no_list():
    assert Uniform(0.0, 1.0).num_values is None
    assert Integer(-(2**62), 2**62).num_values == 2**63 + 1
    with pytest.raises(SpaceError, match="continuous"):
        LogUniform(0.1, 1.0).values()


def test_arguments_are_what_a_space_file_writes():
    assert Quantized(0, 4, 2).arguments == (0, 4, 2)
    assert Uniform(0.0, 1.0).arguments == (0.0, 1.0)
    assert Choice(("a", None)).arguments == ("a", None)
