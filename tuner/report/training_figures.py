"""Figures of training: curves of all trials, losses of the winner, its learning-rate finder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection

from tuner.ledger.states import State
from tuner.report.figures import (
    ACCENT,
    FAINT,
    INK,
    MAX_TIPS,
    MAX_VECTORS,
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
    from numpy.typing import NDArray

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
        label = None if number else "trials are compared here"
        axes.axvline(rung, color=WARM, linewidth=1, linestyle=":", zorder=1, label=label)
    drawn = [(row, [(at, m[metric]) for at, m in row.history if metric in m]) for row in rows]
    drawn = sorted((one for one in drawn if one[1]), key=lambda one: one[0].trial_id == winner)
    pixels: dict[str, Any] = {"rasterized": len(drawn) > MAX_VECTORS}
    alone = drawn
    if len(drawn) > MAX_TIPS:  # a line of its own for each would take a minute
        alone = [one for one in drawn[-1:] if one[0].trial_id == winner]
        lines = [points for _, points in drawn]
        axes.add_collection(LineCollection(lines, colors=FAINT, linewidths=1.0, **pixels))
        dots = [points[0] for points in lines if len(points) == 1]
        axes.plot(*_columns(dots), "o", color=FAINT, markersize=3, **pixels)
    for row, points in alone:
        is_winner = row.trial_id == winner
        axes.plot(
            *_columns(points), color=ACCENT if is_winner else FAINT,
            linewidth=2.4 if is_winner else 1.0, marker="o" if len(points) == 1 else None,
            markersize=3, gid=tip(about(row, metric)),
        )  # fmt: skip
    for status, mark in MARKS.items():
        ends = [points[-1] for row, points in drawn if row.status is status]
        axes.plot(*_columns(ends), mark, color="#7b8794", markersize=6, **pixels)
    axes.autoscale_view()
    few_numbers(axes)
    axes.margins(y=0.08)
    legend(axes)
    return figure_of(axes)


def _columns(points: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """Return the places ``[2, n]`` of points, of which there may be none."""
    return np.array(points, dtype=float).reshape(-1, 2).T


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
