"""The report of a study: ``report.html`` and its figures."""

from __future__ import annotations

import base64
import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import jinja2

from tuner.errors import decorating
from tuner.ledger.doubts import doubts
from tuner.ledger.selection import REFIT
from tuner.ledger.summary import VOTES
from tuner.ledger.trust import leak_in_words
from tuner.report import figures
from tuner.report.leaderboard import as_csv, leaderboard
from tuner.training.metrics import SCORES

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.storage import Folder
    from tuner.ledger.summary import Summary

TEMPLATE = "page.html.jinja"
MAX_ROWS = 50  # of the leaderboard on the page; the CSV has all


def write_report(summary: Summary, folder: Folder, how_to_open: str | None = None) -> None:
    """Write the report of a study so far, replacing an older one.

    Args:
        summary: The study's result.
        folder: The study's folder.
        how_to_open: Line that shows the runs in MLflow; None if no store keeps them.
    """
    with decorating("leaderboard.csv"):
        folder.write_text("leaderboard.csv", as_csv(summary))
    pictures = {}
    for name, draw in _figures(summary, folder).items():
        with decorating(f"the figure {name}"):
            pictures[name] = draw()
            (folder / "figures").write_bytes(f"{name}.png", pictures[name])
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tuner.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    moment = datetime.datetime.fromtimestamp(summary.time_ms / 1000, tz=datetime.UTC)
    page = environment.get_template(TEMPLATE).render(
        study=summary,
        leak=leak_in_words(summary.leakage) if summary.leakage else "",
        doubts=list(doubts(summary)),
        winner_val=summary.tested_val,
        board=leaderboard(summary),
        max_rows=MAX_ROWS,
        score_names=list(SCORES),
        votes=VOTES,
        pictures={name: _inline(png) for name, png in pictures.items()},
        date=moment.strftime("%Y-%m-%d %H:%M UTC"),
        folder=folder,
        storage=folder.parent.parent,
        how_to_open=how_to_open,
    )
    folder.write_text("report.html", page)


def _figures(summary: Summary, folder: Folder) -> dict[str, Callable[[], bytes]]:
    """Return by name what draws the figures that the study has data for, as PNG."""
    winner = summary.winner.trial_id if summary.winner else None
    history = partial(figures.history, summary.trials, summary.metric, winner)
    drawn: dict[str, Callable[[], bytes]] = {"history": history}
    if test := summary.test:
        matrix = partial(figures.confusion_matrix, labels=test.labels)
        drawn["confusion_matrix"] = partial(matrix, test.confusion)
        if (clips := test.clip_confusion) is not None:
            drawn["confusion_clips"] = partial(matrix, clips)
    if finder := _lr_finder(summary, folder):
        drawn["lr_finder"] = partial(figures.learning_rates, **finder)
    return drawn


def _lr_finder(summary: Summary, folder: Folder) -> dict[str, Any] | None:
    """Read what the winning run's learning-rate finder measured; None if it did not run."""
    if summary.confirm is None:
        return None
    run = summary.confirm.run_trial_id
    for trial_id in (f"{REFIT}{run}", run, summary.confirm.trial_id):
        try:
            found = (folder / "trials" / trial_id).read_json("lr_finder.json")
            if len(found["rates"]) == len(found["losses"]):
                return {key: found[key] for key in ("rates", "losses", "suggestion")}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # missing or incomplete
    return None


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
