"""A study's ledger to ``report.html``, figures and ``leaderboard.csv`` in its folder."""

from __future__ import annotations

import base64
import csv
import datetime
import io
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from tuner.ledger import selection
from tuner.report import figures
from tuner.training import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tuner.ledger.journal import Record
    from tuner.ledger.selection import TrialRow

TEMPLATE = "page.html.jinja"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets run cells that begin so
MAX_EXAMPLES = 20  # of what is on two sides
MAX_ROWS = 50  # of the leaderboard on the page; the CSV has all


@dataclass(frozen=True)
class LeaderboardRow:
    """One search trial as people read it."""

    rank: int | None
    trial_id: str
    model: str
    status: str
    epochs: int
    best_epoch: int | None
    value: float | None
    params: dict[str, Any]
    error: str | None
    is_winner: bool


@dataclass(frozen=True)
class ClassRow:
    """Test scores of one class, counted in tracks."""

    label: str
    tracks: int
    precision: float
    recall: float
    f1: float
    mistaken_for: str


def write_report(records: Sequence[Record], folder: Path, how_to_open: str | None = None) -> Path:
    """Write the report of what a ledger holds so far; an older one is replaced.

    Args:
        records: the ledger's, the study record first.
        folder: the study's folder.
        how_to_open: the line that shows the runs; None when nothing keeps them.

    Returns:
        The path of ``report.html``.
    """
    facts = selection.summary(records)
    search = _last(records, "study")["config"]["search"]
    metric, maximise = search["metric"], search["mode"] == "max"
    rows = [r for r in selection.trial_rows(records).values() if r.stage == "search"]
    winner = facts["best"]["trial_id"] if facts["best"] else None
    board = _leaderboard(rows, metric, maximise, winner)
    test = _last(records, "test")
    pictures = {"history.png": figures.history(rows, metric, winner)}
    for key, name in (("confusion", "confusion_matrix"), ("clip_confusion", "confusion_clips")):
        if key in test:
            drawn = figures.confusion_matrix(np.array(test[key]), test["labels"])
            pictures[f"{name}.png"] = drawn
    if finder := _lr_finder(records, folder):
        pictures["lr_finder.png"] = figures.learning_rates(**finder)
    for name, content in pictures.items():
        _write(folder / "figures" / name, content)
    _write(folder / "leaderboard.csv", _csv(board, metric).encode())
    sets = _last(records, "features").get("features", [])
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tuner.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    is_refitted = bool(facts["confirm"] and facts["confirm"]["refit"])
    page = environment.get_template(TEMPLATE).render(
        facts=facts,
        leak=selection.leak_in_words(facts["leakage"]) if facts["leakage"] else "",
        examples=_examples(sets),
        metric=metric,
        board=board[:MAX_ROWS],
        num_more=max(0, len(board) - MAX_ROWS),
        runner_up=next((r for r in board if not r.is_winner and r.value is not None), None),
        winner=next((row for row in board if row.is_winner), None),
        classes=_classes(test) if test else [],
        scores=_scores(test["metrics"]) if test else [],
        ensembles=[_vote_row(row, is_refitted) for row in facts["ensembles"]],
        problems=_last(records, "ensemble").get("problems", []),
        pictures={name.partition(".")[0]: _inline(data) for name, data in pictures.items()},
        status=_last(records, "study_end").get("status", "running"),
        date=_day(records[-1]["time_ms"]),
        folder=folder,
        storage=folder.parent.parent,
        how_to_open=how_to_open,
        suspicions=selection.doubts(records),
    )
    _write(folder / "report.html", page.encode())
    return folder / "report.html"


def _examples(sets: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """What the audits found, (kind, detail) each, once."""
    found = (tuple(pair) for one in sets for pair in one["leakage"].get("examples", ()))
    return list(dict.fromkeys(found))[:MAX_EXAMPLES]


def _leaderboard(
    rows: Sequence[TrialRow], metric: str, maximise: bool, winner: str | None
) -> list[LeaderboardRow]:
    """Ranked trials first, then those without a value in the order they were proposed."""
    ranked = selection.leaderboard(rows, metric, maximise)
    rest = [row for row in rows if row not in ranked]
    return [
        LeaderboardRow(
            rank=rank if rank <= len(ranked) else None,
            trial_id=row.trial_id,
            model=row.experiment.model.name,
            status=row.status,
            epochs=len(row.history),
            best_epoch=row.best["epoch"] if row.best else None,
            value=row.value(metric),
            params=row.params,
            error=row.error or row.note,
            is_winner=row.trial_id == winner,
        )
        for rank, row in enumerate([*ranked, *rest], start=1)
    ]


def _classes(test: Record) -> list[ClassRow]:
    counts = np.array(test["confusion"])
    labels: list[str] = test["labels"]
    found = []
    for i, (precision, recall, f1) in enumerate(zip(*metrics.per_class(counts), strict=True)):
        wrong = counts[i].copy()
        wrong[i] = 0
        worst = int(wrong.argmax())
        mistaken = f"{labels[worst]} ({wrong[worst]})" if wrong[worst] else ""
        found.append(ClassRow(labels[i], int(counts[i].sum()), precision, recall, f1, mistaken))
    return found


def _scores(measured: dict[str, Any]) -> list[tuple[str, list[float | None]]]:
    """Rows of the table of test scores; a study of an older version lacks some."""
    rows = (("tracks, soft vote", ""), ("tracks, hard vote", "hard_"), ("clips", "clip_"))
    found = [
        (words, [measured.get(prefix + name) for name in metrics.SCORES]) for words, prefix in rows
    ]
    losses = [measured.get("log_loss"), None, measured.get("loss")]
    return [(words, [*row, loss]) for (words, row), loss in zip(found, losses, strict=True)]


@dataclass(frozen=True)
class VoteRow:
    """One vote over clips or models as people read it."""

    what: str
    members: str
    val: dict[str, Any]
    test: dict[str, Any]


def _vote_row(row: dict[str, Any], is_refitted: bool) -> VoteRow:
    """A vote in words; with a final fit the winner here is the run before it."""
    members = row["members"]
    equal = len({one["weight"] for one in members}) == 1
    names = [
        f"{one['trial_id']} ({one['model']})" + ("" if equal else f" x {one['weight']:.2f}")
        for one in members
    ]
    winner = "winner before the final fit" if is_refitted else "winner"
    what = {
        "winner_soft": f"{winner}, soft vote over clips",
        "winner_hard": f"{winner}, hard vote over clips",
        "top_k": f"soft vote of the {len(members)} confirmed models",
        "fusion": "fusion of the best model of each family",
    }[row["name"]]
    return VoteRow(what, ", ".join(names), row["val"], row["test"])


def _lr_finder(records: Sequence[Record], folder: Path) -> dict[str, Any] | None:
    """What the learning-rate finder of the winning run left; None when it was not asked for."""
    winner = _last(records, "confirmed").get("winner")
    if winner is None:
        return None
    run = winner["run_trial_id"]
    for trial_id in (f"refit-{run}", run, winner["trial_id"]):
        try:
            found = json.loads((folder / "trials" / trial_id / "lr_finder.json").read_text())
            if len(found["rates"]) == len(found["losses"]):
                return {key: found[key] for key in ("rates", "losses", "suggestion")}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not there, or not whole
    return None


def _csv(board: Sequence[LeaderboardRow], metric: str) -> str:
    # the model has a column of its own already
    names = sorted({name for row in board for name in row.params} - {"model"})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["rank", "trial_id", "model", "status", metric, "best_epoch", "epochs"]
    writer.writerow([_cell(value) for value in (*head, *names, "error")])
    for row in board:
        values = (
            row.rank, row.trial_id, row.model, row.status, row.value, row.best_epoch, row.epochs,
            *(row.params.get(name) for name in names), row.error,
        )  # fmt: skip
        writer.writerow([_cell(value) for value in values])
    return out.getvalue()


def _cell(value: object) -> object:
    """A value that no spreadsheet takes for a formula; numbers stay numbers."""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return value


def _last(records: Sequence[Record], kind: str) -> Record:
    return next((r for r in reversed(records) if r["kind"] == kind), {})


def _day(time_ms: int) -> str:
    moment = datetime.datetime.fromtimestamp(time_ms / 1000, tz=datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _write(path: Path, content: bytes) -> None:
    """Write beside, then rename: a reader never sees half a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.{os.getpid()}")
    building.write_bytes(content)
    building.replace(path)
