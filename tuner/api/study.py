"""A study for Python: its trials and scores as frames, its figures, report and model."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tuner.api.model import Model, load_model
from tuner.errors import UsageError
from tuner.ledger.journal import StudyPaths, recorded
from tuner.ledger.locate import study_folder
from tuner.ledger.summary import summarise
from tuner.ledger.trial_rows import TrialRows
from tuner.ledger.trust import ClassRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.storage import Folder
    from tuner.ledger.trial_rows import TrialRow
    from tuner.ledger.trust import Evaluation

REPORT = "report.html"
_TRIALS = [
    "stage", "model", "status", "best_epoch", "epochs", "folds", "minutes", "seed", "repeats",
    "error",
]  # fmt: skip
_INTERVALS = {"f1_macro": "ci95", "accuracy": "accuracy_ci95"}


class Study:
    """A study as its folder holds it; open it again to see what has happened since.

    Frames of a part that the study has not reached are empty.

    Attributes:
        name: Name of the study.
        folder: Its folder, or its address.
        metric: The metric that trials are ranked by.
        status: How it ended, or ``running``.
    """

    def __init__(self, folder: Folder) -> None:
        records = recorded(folder)
        self._summary = summarise(records)
        self._rows = TrialRows(records)
        self._paths = StudyPaths(folder.parent.parent, folder.path.name, "")
        self.name = self._summary.study
        self.folder: Any = folder.address  # a path, unless it is in a bucket
        self.metric = self._summary.metric
        self.status = self._summary.status

    def __repr__(self) -> str:
        from tuner.report.result import result_lines

        return "\n".join(
            [
                f"study       {self.name}, {self.status}",
                *result_lines(self._summary, self._paths, None),
            ]
        )

    @property
    def trials(self) -> pd.DataFrame:
        """The trials at a glance, those of the search first, the best in front.

        By id: stage, model, status, the metric, the best epoch or the number of folds, minutes,
        and the settings that its model reads, by short names. Columns with one value are left out.
        """
        rows = [{**row.short_params, **self._facts(row)} for row in self._ordered()]
        costs = dict.fromkeys(name for row in self._ordered() for name in row.costs)
        facts = [
            "stage", "model", "status", self.metric, *costs, "best_epoch", "folds", "minutes",
        ]  # fmt: skip
        names = dict.fromkeys(name for row in self._ordered() for name in row.short_params)
        frame = _by_id(rows, facts)[list(dict.fromkeys([*facts, *names]))]
        constant = {name for name in frame if len(set(map(repr, frame[name]))) < 2}
        return frame.drop(columns=list(constant - {"status", self.metric}))

    @property
    def all_trials(self) -> pd.DataFrame:
        """The trials in full: with epochs, seed, what they repeat, error, and all parameters.

        A parameter has the name by which `search.start` takes it, such as ``model.cnn.blocks``.
        """
        rows = [
            {**self._facts(row), **{k: v for k, v in row.params.items() if k != "model"}}
            for row in self._ordered()
        ]
        return _by_id(rows, [*_TRIALS[:3], self.metric, *_TRIALS[3:]])

    def _ordered(self) -> list[TrialRow]:
        first = {row.trial_id: row for row in self._summary.ranked}
        return [*{**first, **self._rows}.values()]

    def _facts(self, row: TrialRow) -> dict[str, Any]:
        counted = {f"{row.unit}s": len(row.history)}
        took = (
            None
            if row.end_seconds is None
            else (row.end_seconds - row.start_seconds - row.waited_seconds) / 60
        )
        return {
            "trial_id": row.trial_id, "stage": row.stage, "model": row.model,
            "status": str(row.status), self.metric: row.value(self.metric),
            **row.costs, "best_epoch": row.best_epoch, "epochs": counted.get("epochs"),
            "folds": counted.get("folds"), "minutes": took, "seed": row.seed,
            "repeats": row.parent_trial, "error": row.error or row.note,
        }  # fmt: skip

    @property
    def best(self) -> pd.Series | None:
        """The trial of the search with the best value, picked among noisy ones; None before."""
        ranked = self._summary.ranked
        return self._alone(ranked[0]) if ranked else None

    @property
    def winner(self) -> pd.Series | None:
        """The trial whose configuration was confirmed with new seeds; before that, the best."""
        winner = self._summary.winner
        return self._alone(winner) if winner else None

    def _alone(self, row: TrialRow) -> pd.Series:
        facts = self._facts(row)
        return pd.Series({**facts, **row.short_params}, name=facts.pop("trial_id")).dropna()

    @property
    def curves(self) -> pd.DataFrame:
        """Every metric of every trial after each epoch, or fold: one row for each."""
        rows = [
            {"trial_id": row.trial_id, "stage": row.stage, "epoch": epoch, **measured}
            for row in self._rows.values()
            for epoch, measured in row.history
        ]
        return pd.DataFrame(rows, columns=None if rows else ["trial_id", "stage", "epoch"])

    @property
    def scores(self) -> pd.DataFrame:
        """Scores on the test tracks: value, and ends of the 95 % interval where there is one."""
        measured = self._summary.test.metrics if self._summary.test else {}
        rows = [
            (name, value, *measured.get(_INTERVALS.get(name, ""), (None, None)))
            for name, value in measured.items()
            if name not in _INTERVALS.values()
        ]
        columns = ["score", "value", "low", "high"]
        return pd.DataFrame(rows, columns=columns).set_index("score")

    @property
    def classes(self) -> pd.DataFrame:
        """Precision, recall, F1 and number of test tracks of each class."""
        test = self._summary.test
        rows = list(test.classes) if test else []
        return pd.DataFrame(rows, columns=list(ClassRow._fields)).set_index("label")

    @property
    def confusion(self) -> pd.DataFrame:
        """Number of test tracks by true class (rows) and predicted class (columns)."""
        test = self._summary.test
        if test is None:
            return pd.DataFrame()
        true, predicted = (pd.Index(test.labels, name=name) for name in ("true", "predicted"))
        return pd.DataFrame(test.confusion, index=true, columns=predicted)

    @property
    def baselines(self) -> pd.DataFrame:
        """Macro F1 of models that cost nothing, on the same validation and test tracks."""
        rows = [
            (one.title, *((part or {}).get("f1_macro") for part in (one.val, one.test)))
            for one in self._summary.baselines
        ]
        return pd.DataFrame(rows, columns=["baseline", "val", "test"]).set_index("baseline")

    @property
    def choices(self) -> pd.DataFrame:
        """Settings that the space file left ``auto``, with the value chosen and the reason."""
        columns = ["setting", "value", "reason"]
        return pd.DataFrame(self._summary.choices, columns=columns).set_index("setting")

    @property
    def report(self) -> Path:
        """The report, a page that needs no server; a copy of it, if the study is in a bucket."""
        folder = self._paths.folder
        return folder.file(REPORT) if folder.is_remote else folder.local(REPORT)

    def plot_trials(self) -> Figure:
        """Draw the metric over epochs, a line for each trial of the search."""
        from tuner.report.page import learning_curves

        return _shown(learning_curves(self._summary))

    def plot_confusion(self) -> Figure:
        """Draw the confusions on the test tracks.

        Raises:
            UsageError: The study has not been tested.
        """
        from tuner.report.score_figures import confusion_matrix

        test = self._tested()
        return _shown(confusion_matrix(test.confusion, test.labels))

    def _tested(self) -> Evaluation:
        if self._summary.test is None:
            raise UsageError(f"study {self.name!r} is {self.status} and has not been tested")
        return self._summary.test

    def model(self) -> Model:
        """Load the tested model.

        Raises:
            UserError: The study has not been tested, or the model is damaged.
        """
        self._tested()
        return load_model(str(self._paths.folder / "model"))


def _by_id(rows: list[dict[str, Any]], first: list[str]) -> pd.DataFrame:
    columns = dict.fromkeys(["trial_id", *first, *(name for row in rows for name in row)])
    return pd.DataFrame(rows, columns=list(columns)).set_index("trial_id")


def _shown(figure: Figure) -> Figure:
    """Let a notebook show figures: without pyplot, it would print the name of their class."""
    if "IPython" in sys.modules:
        from IPython import get_ipython
        from IPython.core.pylabtools import select_figure_formats

        if shell := get_ipython():
            select_figure_formats(shell, {"png"})
    return figure


def open_study(study: str | Path, storage: str | Path = "results") -> Study:
    """Open a study by its name or its folder, whether it runs or has ended.

    Args:
        study: Name of the study, or its folder.
        storage: Folder of results that the name belongs to.

    Raises:
        UsageError: There is no such study.
    """
    return Study(study_folder(os.path.expanduser(study), os.path.expanduser(storage)))  # noqa: PTH111  # or an address
