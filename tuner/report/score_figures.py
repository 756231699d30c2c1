"""Figures of a score: compared with chance and baselines, by class, and by confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tuner.report.figures import (
    ACCENT,
    FAINT,
    GRID,
    INK,
    WARM,
    WIDTH,
    axes_of,
    figure_of,
    fitted,
    legend,
    styled,
)
from tuner.training.uncertainty import exact_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MAX_NUMBERED = 20  # with more classes, counts are not written into the cells
MAX_NAMED = 80  # with more classes, names would lie on each other; each second one is shown


class ScoreLine(NamedTuple):
    """One model in the figure of scores.

    Attributes:
        title: Name of the model.
        score: Its score.
        interval: 95 % interval; None if there is none.
        is_tested: True for the study's own model.
    """

    title: str
    score: float
    interval: Sequence[float] | None = None
    is_tested: bool = False


@styled
def scores(lines: Sequence[ScoreLine], name: str) -> Figure:
    """Draw scores from 0 to 1, one below the other, with their intervals."""
    axes = axes_of(0.42 * len(lines) + 0.45, name)
    for y, line in zip(range(len(lines), 0, -1), lines, strict=True):
        colour = ACCENT if line.is_tested else "#7b8794"
        weight = "bold" if line.is_tested else "normal"
        axes.plot([0, 1], [y, y], color=GRID, linewidth=1, zorder=1)
        if line.interval:
            axes.plot(line.interval, [y, y], color=colour, linewidth=4, alpha=0.45, zorder=2)
        axes.plot(line.score, y, "o", color=colour, markersize=7, zorder=3)
        axes.text(
            0,
            y + 0.18,
            fitted(line.title, 215 if line.is_tested else 245),
            color=INK,
            fontweight=weight,
            va="bottom",
        )
        axes.text(
            1, y + 0.18, f"{line.score:.3f}", color=INK, fontweight=weight, ha="right",
            va="bottom",
        )  # fmt: skip
    axes.set(xlim=(-0.02, 1.02), ylim=(0.6, len(lines) + 0.8), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    return figure_of(axes)


@styled
def confusion_matrix(counts: NDArray[np.int64], labels: Sequence[str]) -> Figure:
    """Draw counts ``[k, k]``: true classes in rows, predictions in columns, shaded by row."""
    k = len(labels)
    size = min(max(2.6, 0.32 * k), 7.6)
    axes = axes_of(size + 1.0, "predicted", "true", width=max(WIDTH, size + 1.4))
    axes.grid(visible=False)
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    font = 9 if k <= MAX_NUMBERED else max(4, 240 / k)
    names = [fitted(label, 90, font) for label in labels]
    shown = slice(None, None, 1 + k // MAX_NAMED)
    axes.set_xticks(range(k)[shown], names[shown], rotation=90)
    axes.set_yticks(range(k)[shown], names[shown])
    axes.tick_params(labelsize=font, length=0)
    for edge in axes.spines.values():
        edge.set_visible(False)
    if k <= MAX_NUMBERED:
        for (i, j), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[i, j] > 0.55 else INK
                weight = "bold" if i == j else "normal"
                axes.text(
                    j, i, str(count), ha="center", va="center", color=colour, fontweight=weight
                )
    return figure_of(axes)


@styled
def reliability(bins: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Draw accuracy over confidence, with 95 % intervals.

    Args:
        bins: Tracks by confidence, ``before`` and ``after`` calibration.
    """
    axes = axes_of(3.0, "confidence of the model", "accuracy")
    axes.plot([0, 1], [0, 1], "--", color=FAINT, linewidth=1.2, label="perfect")
    for one in bins["after"]:
        ends = exact_interval(one["accuracy"], one["tracks"])
        axes.plot([one["confidence"]] * 2, ends, color=ACCENT, linewidth=3, alpha=0.3)
    is_calibrated = bins["before"] != bins["after"]
    for name, colour, inside in (("before", WARM, "none"), ("after", ACCENT, ACCENT)):
        if name == "after" or is_calibrated:
            axes.plot(
                [one["confidence"] for one in bins[name]],
                [one["accuracy"] for one in bins[name]], "o", markersize=6,
                markeredgecolor=colour, markerfacecolor=inside,
                label=f"{name} calibration" if is_calibrated else None,
            )  # fmt: skip
    axes.set(xlim=(0, 1.03), ylim=(-0.02, 1.03))
    legend(axes)
    return figure_of(axes)
