"""Texts of the report's figures: none lies on another or leaves its figure."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from pipelines.storage import Folder
from tests.tuner.studies import Script, baseline
from tuner.ledger.summary import summarise
from tuner.report import figures, score_figures, training_figures
from tuner.report.page import write_report

TOUCH_POINTS = 1.0  # boxes have some air above and below their letters


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[Figure, dict[Text, Bbox]]:
    """The boxes of the texts that matplotlib draws, by figure."""
    boxes: dict[Figure, dict[Text, Bbox]] = defaultdict(dict)
    draw = Text.draw

    def record(text: Text, renderer: Any) -> None:
        figure = text.get_figure()
        if text.get_text().strip():
            assert isinstance(figure, Figure)
            boxes[figure][text] = text.get_window_extent(renderer)
        draw(text, renderer)

    monkeypatch.setattr(Text, "draw", record)  # only the renderer knows where a text comes to lie
    return boxes


def assert_apart(drawn: dict[Figure, dict[Text, Bbox]]) -> None:
    for figure, texts in drawn.items():
        width, height = figure.get_size_inches() * 72  # as SVG
        for text, box in texts.items():
            where = f"{text.get_text()!r} at {box}, of {width} x {height}"
            assert box.x0 > -TOUCH_POINTS, where
            assert box.x1 < width + TOUCH_POINTS, where
            assert box.y0 > -TOUCH_POINTS, where
            assert box.y1 < height + TOUCH_POINTS, where
        for (one, first), (other, second) in itertools.combinations(texts.items(), 2):
            shared = Bbox.intersection(first, second)
            if shared and min(shared.width, shared.height) > TOUCH_POINTS:
                raise AssertionError(f"{one.get_text()!r} lies on {other.get_text()!r}")


def study_of(trials: int, params: int, letter: str, equal: bool) -> list[dict[str, Any]]:
    """A study whose names are long; each fourth trial failed, and one has a loss of NaN."""
    script, random = Script("s"), np.random.default_rng(0)
    script.study()
    script.features()
    rows = [baseline(name, 0.5 if equal else 0.3 + 0.1 * i) for i, name in enumerate(BASELINES)]
    script.add("baselines", val_tracks=60, rows=rows)
    for number in range(trials):
        height = 0.5 / (1 - np.exp(-2.5)) if equal else random.uniform(0.2, 0.9)
        script.trial(f"t{number}", number % 4)
        sampled: dict[str, Any] = {}
        for i in range(params):
            kinds = (
                float(10 ** random.uniform(-7, 0)), int(random.integers(1, 4)),
                f"{letter * 60}{random.integers(12)}", float(random.uniform(0.1234, 0.1235)),
                bool(random.integers(2)), int(random.integers(100_000, 110_000)),
            )  # fmt: skip
            sampled[f"model.{letter * 50}.{i}"] = 1 if equal else kinds[i % len(kinds)]
        script.records[-1]["params"] = sampled
        script.records[-1]["config"]["model"]["name"] = f"{letter * 60}{number % 9}"
        if number % 4 == 3:
            script.end(f"t{number}", "failed", 0.0, 0)
            continue
        script.epochs(f"t{number}", height, range(1, 6))
        if number == 1:
            script.records[-1]["metrics"]["val_loss"] = float("nan")
        script.end(f"t{number}", "completed", height, 5)
    return script.records


BASELINES = ("majority", "ridge_logmel", "ridge_embedding")


@pytest.mark.parametrize(
    ("trials", "params", "letter", "equal"),
    [(1, 1, "W", True), (9, 3, "W", False), (9, 3, "i", True), (100, 25, "W", False)],
)
def test_no_text_of_a_search_lies_on_another(
    tmp_path: Path, drawn: dict, trials: int, params: int, letter: str, equal: bool
) -> None:
    records = study_of(trials, params, letter, equal)
    write_report(summarise(records), Folder.at(tmp_path))
    assert drawn
    assert_apart(drawn)


@pytest.mark.slow
def test_thousands_of_trials_take_no_more_room_than_a_thousand(tmp_path: Path) -> None:
    sizes = []
    for number in (1500, 3000):
        script = Script("s")
        script.study()
        for ordinal in range(number):
            script.trial(f"t{ordinal}", ordinal % 40)
            script.epochs(f"t{ordinal}", 0.9 * (ordinal * 0.618 % 1), range(1, 1 + ordinal % 4))
            script.end(f"t{ordinal}", "completed", 0.9 * (ordinal * 0.618 % 1), 4)
        write_report(summarise(script.records), Folder.at(tmp_path))
        drawn = {one.stem: one.stat().st_size for one in (tmp_path / "figures").iterdir()}
        assert {"history", "best_so_far", "families", "parallel", "slice_1"} <= set(drawn)
        sizes.append(drawn)
    for name, size in sizes[1].items():
        assert size < 1.5 * sizes[0][name], name
        assert size < 400_000, name


@pytest.mark.parametrize("k", [2, 12, 30, 100])
def test_no_text_of_a_test_lies_on_another(drawn: dict, k: int) -> None:
    names = [f"{'W' * 60}{i}" for i in range(k)]
    figures.as_svg(score_figures.confusion_matrix(1000 * np.eye(k, dtype=int), names), "a")
    lines = [score_figures.ScoreLine(name, i / k, is_tested=not i) for i, name in enumerate(names)]
    figures.as_svg(score_figures.scores(lines[:12], "macro F1 on the test tracks"), "b")
    bins = [{"confidence": 0.3, "accuracy": 0.3, "tracks": 5}]
    figures.as_svg(score_figures.reliability({"before": [], "after": bins}), "c")
    assert_apart(drawn)


@pytest.mark.parametrize("suggestion", [1e-7, 1e-3, 10.0])
def test_the_suggested_rate_lies_beside_the_curve(drawn: dict, suggestion: float) -> None:
    rates = np.geomspace(1e-7, 10, 40)
    figures.as_svg(training_figures.learning_rates(rates.tolist(), [2.0] * 40, suggestion), "x")
    assert_apart(drawn)
