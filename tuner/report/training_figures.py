"""Figures of training: curves of all trials, losses of the winner, its learning-rate finder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tuner.ledger.states import State
from tuner.report.figures import (
    ACCENT,
    FAINT,
    INK,
    MAX_TIPS,
    SOFT,
    WARM,
    about,
    axes_of,
    few_numbers,
    figure_of,
    legend,
    log_axis,
    styled,
    tip,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from tuner.ledger.trial_rows import TrialRow
    from tuner.report.search_figures import Marks

MARKS = {State.FAILED: "x", State.STOPPED_EARLY: "|"}


@styled
def learning_curves(
    rows: Sequence[TrialRow], marks: Marks, rungs: Sequence[int], unit: str
) -> Figure:
    """Draw a metric over epochs or folds: a line for each trial, the winner in colour."""
    metric, winner = marks.metric, marks.winner
    axes = axes_of(3.0, unit, metric)
    for number, rung in enumerate(rungs):
        label = None if number else "weak trials are stopped here"
        axes.axvline(rung, color=WARM, linewidth=1, linestyle=":", zorder=1, label=label)
    for row in sorted(rows, key=lambda row: row.trial_id == winner):
        points = [(epoch, m[metric]) for epoch, m in row.history if metric in m]
        if not points:
            continue
        epochs, values = zip(*points, strict=True)
        is_winner = row.trial_id == winner
        axes.plot(
            epochs, values, color=ACCENT if is_winner else FAINT,
            linewidth=2.4 if is_winner else 1.0, marker="o" if len(points) == 1 else None,
            markersize=3, gid=tip(about(row, metric)) if len(rows) <= MAX_TIPS else None,
        )  # fmt: skip
        if mark := MARKS.get(row.status):
            axes.plot(epochs[-1], values[-1], mark, color="#7b8794", markersize=6)
    few_numbers(axes)
    axes.margins(y=0.08)
    legend(axes)
    return figure_of(axes)


@styled
def losses(row: TrialRow, unit: str) -> Figure:
    """Draw the training and the validation loss of one trial."""
    axes = axes_of(3.0, unit, "loss, in nats")
    for name, title, colour, style in (
        ("train_loss", "training", WARM, "--"),
        ("val_loss", "validation", ACCENT, "-"),
    ):
        points = [(epoch, m[name]) for epoch, m in row.history if name in m]
        if points:
            axes.plot(*zip(*points, strict=True), style, color=colour, linewidth=2, label=title)
    if row.best_epoch is not None:
        axes.axvline(row.best_epoch, color=SOFT, linewidth=1, linestyle=":", label="best epoch")
    few_numbers(axes)
    legend(axes)
    return figure_of(axes)


@styled
def learning_rates(
    rates: Sequence[float], losses: Sequence[float | None], suggestion: float | None
) -> Figure:
    """Draw a learning-rate finder: loss over rate on a log axis, with the suggested rate.

    Non-finite losses are left out; losses after the model has diverged are cut off at the top.
    """
    points = [
        (rate, loss)
        for rate, loss in zip(rates, losses, strict=True)
        if loss is not None and np.isfinite(loss)
    ]
    axes = axes_of(2.6, "learning rate", "training loss")
    log_axis(axes)
    if points:
        tried, found = zip(*points, strict=True)
        axes.plot(tried, found, color=INK, linewidth=1.6)
        low, start = min(found), found[0]
        if max(found) > 3 * start > 0:
            axes.set_ylim(low - 0.1 * (start - low), 1.5 * start)
    if suggestion is not None:
        axes.axvline(suggestion, color=ACCENT, linewidth=1.4, label=f"suggested: {suggestion:.3g}")
        legend(axes)
    return figure_of(axes)
