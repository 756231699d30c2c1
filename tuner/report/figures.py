"""Figures of a study as PNG, drawn without pyplot and its global state."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from tuner.ledger.selection import TrialRow

P = ParamSpec("P")

DPI = 110
INK, FAINT, ACCENT = "#1f2933", "#b8c2cc", "#0b69a3"
MAX_NUMBERED = 20  # with more classes, counts are not written into the cells


def _figure(size_inch: tuple[float, float], x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size_inch, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    return figure, axes


def drawn(paint: Callable[P, Figure]) -> Callable[P, bytes]:
    """Let a function return its figure as PNG; the figure itself is that of ``__wrapped__``."""

    @functools.wraps(paint)
    def draw(*args: P.args, **kwargs: P.kwargs) -> bytes:
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            # Characters that the font lacks appear as boxes; the tables of the page show them.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            # Omit the software tag, so that the same study gives the same bytes.
            paint(*args, **kwargs).savefig(
                buffer, format="png", dpi=DPI, metadata={"Software": None}
            )
        return buffer.getvalue()

    return draw


@drawn
def confusion_matrix(counts: NDArray[np.int64], labels: Sequence[str]) -> Figure:
    """Draw counts ``[k, k]``: true classes in rows, predictions in columns, shaded by row."""
    k = len(labels)
    size_inch = min(max(3.4, 1.6 + 0.55 * k), 16)
    figure, axes = _figure((size_inch + 0.9, size_inch), "predicted", "true")
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(k)
    size = 9 if k <= MAX_NUMBERED else max(3, 180 // k)
    names = [name if len(name) <= 18 else name[:17] + "…" for name in labels]
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    if k <= MAX_NUMBERED:
        for (i, j), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[i, j] > 0.55 else INK
                axes.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=9)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("share of the true class", color=INK, fontsize=9)
    bar.outline.set_visible(False)
    return figure


@drawn
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
    figure, axes = _figure((7.2, 3.0), "learning rate", "training loss")
    axes.set_xscale("log")
    if points:
        tried, found = zip(*points, strict=True)
        axes.plot(tried, found, color=INK, linewidth=1.6)
        low, start = min(found), found[0]
        if max(found) > 3 * start > 0:
            axes.set_ylim(low - 0.1 * (start - low), 1.5 * start)
    if suggestion is not None:
        axes.axvline(suggestion, color=ACCENT, linewidth=1.4)
        axes.annotate(
            f"suggested: {suggestion:.3g}", (suggestion, 1.0), xycoords=("data", "axes fraction"),
            color=ACCENT, fontsize=9, xytext=(4, -2), textcoords="offset points", va="top",
        )  # fmt: skip
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    return figure


@drawn
def history(rows: Sequence[TrialRow], metric: str, winner: str | None) -> Figure:
    """Draw a metric over epochs, one line for each search trial, the winner in colour."""
    figure, axes = _figure((7.2, 3.4), "epoch", metric)
    marks = {"stopped": "|", "failed": "x"}
    for row in rows:
        points = [(epoch, m[metric]) for epoch, m in row.history if metric in m]
        if not points:
            continue
        epochs, values = zip(*points, strict=True)
        is_winner = row.trial_id == winner
        axes.plot(
            epochs, values, color=ACCENT if is_winner else FAINT,
            linewidth=2.2 if is_winner else 1.0, zorder=3 if is_winner else 2,
            marker="o" if len(points) == 1 else None, markersize=3,
        )  # fmt: skip
        if row.status in marks:
            axes.plot(epochs[-1], values[-1], marks[row.status], color="#7b8794", markersize=7)
        if is_winner:
            axes.annotate(
                f"winner {row.trial_id}", (epochs[-1], values[-1]), color=ACCENT, fontsize=9,
                xytext=(0, 6), textcoords="offset points", ha="right", va="bottom",
            )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.margins(y=0.12)
    return figure
