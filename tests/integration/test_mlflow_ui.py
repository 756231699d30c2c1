"""A study in MLflow's own web pages, in a real headless browser: trials are found and compared."""

from __future__ import annotations

import contextlib
import json
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import BROWSER, DRIVER, Page, browser
from tests.mlflow_server import server
from tests.tuner.studies import finished_study
from tuner.tracking.mlflow_tracker import open_tracker

CHART_VIEW = "label:has(input[value=CHART])"
# Names of the axes of parallel coordinates, in the chart view and on the page for comparing.
AXES = """
return [...document.querySelectorAll("svg text.label, svg .axis-title, svg .axis-heading")]
  .filter(e => e.getClientRects().length).map(e => e.textContent);
"""

pytestmark = [
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="chromium is not installed"),
    pytest.mark.slow,
    pytest.mark.timeout(240),
]


class Study:
    """A tracked study: the ids of its runs, and the address of a server that shows them."""

    def __init__(self, storage: Path) -> None:
        with contextlib.closing(open_tracker(None, storage, "quick")) as tracker:
            for record in finished_study():
                tracker.record(record)
            tracker.flush()
            self.parent = tracker.parent_run_id
            self.trials = [tracker.run_id(name) for name in ("t0", "t1")]
            # The user sees a command, and the address to open after it.
            self.line, _, told = tracker.how_to_open.partition("  # then open ")
        self.runs = urllib.parse.urlsplit(told).fragment
        assert self.parent is not None
        assert None not in self.trials

    def page(self, path: str) -> str:
        """Where a page is in the part of the UI that is about training."""
        joint = "&" if "?" in path else "?"
        return f"{path}{joint}workflowType=machine_learning"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("storage"))


@pytest.fixture(scope="module")
def address(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(study.line, tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A browser that sees the UI for the first time; the UI keeps its choices in the profile."""
    with browser(tmp_path / "profile") as page:
        page.resize(1400, 900)
        yield page


def test_the_printed_address_shows_the_trials_by_the_target(
    study: Study, address: str, page: Page
) -> None:
    page.open(f"{address}/#{study.runs}")
    text = page.wait_for_text("best_val_f1_macro", "search t0 cnn", "optim.lr")
    assert "Evaluation runs" not in text  # which is in the part for language models
    assert "quick: trials by val_f1_macro" in text
    # Scores by hand: t1 0.9, t0 0.8, t2 0.4 of their heights; t3 failed and has none.
    order = [line for line in text.splitlines() if line.startswith("search t")]
    assert [name.split()[1] for name in order] == ["t1", "t0", "t2", "t3"]
    columns = page.run(
        "return [...document.querySelectorAll('[role=columnheader][col-id]')]"
        ".map(e => [e.getBoundingClientRect().left, e.getAttribute('col-id')])"
    )
    shown = [
        name for _, name in sorted(columns) if name.startswith(("metrics.", "tags.", "params."))
    ]
    assert shown[:4] == [
        "metrics.`best_val_f1_macro`", "tags.`best_epoch`", "params.`model`", "params.`optim.lr`",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [1400, 800])
def test_one_click_shows_parallel_coordinates_with_the_target(
    study: Study, address: str, page: Page, width: int
) -> None:
    page.resize(width, 900)
    page.open(f"{address}/#{study.runs}")
    page.wait_for_text("search t0 cnn")
    page.click_at(CHART_VIEW)
    page.wait_for(AXES.replace("return", "const axes =") + "return axes.length >= 3;")
    axes = page.run(AXES)
    assert axes[:2] == ["model", "optim.lr"]
    # The chart cuts long names in the middle, after a moment.
    assert re.fullmatch(r"best_v(al_f1|\.\.\.)_macro", axes[2])
    assert page.clicks == 1


def test_the_page_for_comparing_starts_with_target_and_parameters(
    study: Study, address: str, page: Page
) -> None:
    asked = {"runs": json.dumps(study.trials), "experiments": json.dumps(["1"])}
    path = study.page(f"/compare-runs?{urllib.parse.urlencode(asked)}")
    page.open(f"{address}/#{path}")
    text = page.wait_for_text("Comparing 2 Runs from 1 Experiment", "Run details")
    axes = page.wait_for(AXES.replace("return", "const axes =") + "return axes.length && axes;")
    assert list(dict.fromkeys(axes)) == ["model", "optim.lr", "best_val_f1_macro"]
    for row in ("search t0 cnn", "search t1 resnet18", "val_loss"):
        assert row in text


def test_seeds_of_a_configuration_are_one_group_with_mean_and_deviation(
    study: Study, address: str, page: Page
) -> None:
    page.open(f"{address}/#{study.runs}-seeds")
    text = page.wait_for_text("Group: t1", "seeds_std")
    assert "0.79 (average)" in text
    assert "0.0212132034355964" in text


def test_the_study_has_its_note_its_trials_and_its_data(
    study: Study, address: str, page: Page
) -> None:
    page.open(f"{address}/#{study.page(f'/experiments/1/runs/{study.parent}')}")
    text = page.wait_for_text("python -m tuner.run quick", "Child runs", "confirmed_mean")
    _, _, children = text.partition("Child runs")
    for name in ("search t0 cnn", "search t1 resnet18", "confirm t1 seed 1 resnet18"):
        assert name in children
    for shown in ("best_so_far_val_f1_macro", "test_f1_macro", "0123456789abcdef"):
        assert shown in text
