"""Figures of a search: over time, over epochs, and over the settings that it tried."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from tuner.ledger.states import State
from tuner.report.figures import (
    ACCENT,
    FAINT,
    GRID,
    INK,
    MAX_TIPS,
    MAX_VECTORS,
    SOFT,
    about,
    axes_of,
    few_numbers,
    figure_of,
    fitted,
    legend,
    log_axis,
    look_of,
    points_of,
    styled,
    tip,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tuner.ledger.course import Family, Step
    from tuner.ledger.importance import Importance
    from tuner.ledger.summary import Summary
    from tuner.ledger.trial_rows import TrialRow

SLICE_WIDTH = 1.9  # inches: half of a telephone
MAX_OPTIONS = 10  # names below a slice; of more, each second one is shown
# White below words that lines cross.
BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
DASHES = (":", "--", "-.", (0, (6, 2, 1, 2, 1, 2)))  # of values to compare with
LOG_RATIO = 20  # of the largest to the smallest value; more is drawn on a logarithmic axis


class Marks(NamedTuple):
    """How the trials of a study are marked, in all of its figures.

    Attributes:
        metric: Metric of the study.
        winner: Trial of the winner, which gets a ring; None if there is none.
        looks: Colour and shape of each model.
    """

    metric: str
    winner: str | None
    looks: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, study: Summary) -> Marks:
        """Return the marks of a study; models keep theirs from figure to figure."""
        winner = study.winner.trial_id if study.winner else None
        return cls(study.metric, winner, look_of(sorted({row.model for row in study.trials})))

    def draw(self, axes: Axes, points: Sequence[tuple[float, float, TrialRow]]) -> None:
        """Draw trials as points, hollow if they were stopped early."""
        groups: dict[tuple[str, bool], list[tuple[float, float]]] = {}
        for x, y, row in points:
            hollow = row.status is State.STOPPED_EARLY or row.is_partial
            groups.setdefault((row.model, hollow), []).append((x, y))
            if row.trial_id == self.winner:
                axes.plot(x, y, "o", markersize=13, markeredgecolor=INK, markerfacecolor="none")
        for (model, hollow), places in groups.items():
            colour, shape = self.looks[model]
            axes.plot(
                *zip(*places, strict=True), shape, markersize=6 if len(points) < 60 else 4,
                markeredgecolor=colour, markerfacecolor="none" if hollow else colour, alpha=0.85,
                rasterized=len(points) > MAX_VECTORS,
            )  # fmt: skip

    def tell(self, axes: Axes, points: Sequence[tuple[float, float, TrialRow]]) -> None:
        """Let points say which trial they are when a pointer rests on them."""
        for x, y, row in points[:MAX_TIPS]:
            axes.plot(x, y, "o", markersize=10, alpha=0.01, gid=tip(about(row, self.metric)))

    def name_models(self, axes: Axes) -> None:
        """Name the models in the legend, if there are several."""
        if len(self.looks) > 1:
            for model, (colour, shape) in self.looks.items():
                axes.plot([], [], shape, color=colour, label=model)


@styled
def best_so_far(steps: Sequence[Step], marks: Marks, lines: Mapping[str, float]) -> Figure:
    """Draw each trial when it ended, the best value so far, and values to compare with."""
    minutes = [step.minutes for step in steps]
    unit, scale = ("minutes", 1) if max(minutes) > 3 else ("seconds", 60)
    ended = [scale * one for one in minutes]
    axes = axes_of(3.0, f"{unit} since the search began", marks.metric)
    reached = [step.value for step in steps]
    room = 0.3 * (max(reached) - min(reached))
    for (name, value), dashes in zip(lines.items(), itertools.cycle(DASHES)):
        if min(reached) - room <= value <= max(reached) + room:
            label = f"{value:.3f} {name}"
            axes.axhline(value, color=SOFT, linewidth=1, linestyle=dashes, label=label, zorder=1)
        # Others would press the trials together.
    axes.step(ended, [step.best for step in steps], where="post", color=INK, linewidth=1.8)
    points = [(x, one.value, one.trial) for x, one in zip(ended, steps, strict=True)]
    marks.draw(axes, points)
    marks.tell(axes, points)
    marks.name_models(axes)
    axes.margins(x=0.04, y=0.1)
    legend(axes)
    return figure_of(axes)


@styled
def importance(settings: Sequence[Importance]) -> Figure:
    """Draw the importance of settings as bars with their uncertainty, the largest on top."""
    axes = axes_of(0.3 * len(settings) + 0.6, "share of the variance between trials")
    for y, one in zip(range(len(settings), 0, -1), settings, strict=True):
        axes.barh(y, max(0.0, one.share), color=ACCENT, alpha=0.75, height=0.6)
        axes.plot([one.low, one.high], [y, y], color=INK, linewidth=1.4)
    names = [fitted(one.name, 140) for one in settings]
    axes.set_yticks(range(len(settings), 0, -1), names)
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=GRID)
    axes.tick_params(axis="y", length=0)
    return figure_of(axes)


@styled
def slice_of(name: str, rows: Sequence[TrialRow], marks: Marks) -> Figure:
    """Draw the metric over one setting."""
    axes = axes_of(1.6, name, marks.metric, width=SLICE_WIDTH)
    rows = [row for row in rows if name in row.read_params]
    values = [row.read_params[name] for row in rows]
    if _is_numeric(values):
        places = [float(value) for value in values]
        if min(places) > 0 and max(places) / min(places) > LOG_RATIO:
            log_axis(axes)
        else:
            few_numbers(axes, 3, all(isinstance(value, int) for value in values))
    else:
        options = sorted({_text(value) for value in values})
        places = [float(options.index(_text(value))) for value in values]
        room = 90 / len(options)
        upright = any(points_of(option, 8) > room for option in options)
        figure_of(axes).set_figheight(2.4 if upright else 1.6)
        names = [fitted(option, 60 if upright else room, 8) for option in options]
        shown = slice(None, None, 1 + len(options) // MAX_OPTIONS)
        axes.set_xticks(
            range(len(options))[shown], names[shown], rotation=90 if upright else 0, fontsize=8
        )
    reached = [row.reached(marks.metric) for row in rows]
    marks.draw(axes, list(zip(places, reached, rows, strict=True)))
    axes.margins(0.15)  # the winner's ring has room
    axes.yaxis.set_major_locator(MaxNLocator(4))
    return figure_of(axes)


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)


def _is_numeric(values: Sequence[object]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _on_axis(values: Sequence[Any]) -> tuple[list[float], str, str]:
    """Return values as places from 0 to 1, and what stands at both ends."""
    if not _is_numeric(values):
        options = sorted({_text(value) for value in values})
        ends = max(1, len(options) - 1)
        last = options[-1] if len(options) > 1 else ""
        return [options.index(_text(value)) / ends for value in values], options[0], last
    numbers = np.array(values, dtype=float)
    low, high = numbers.min(), numbers.max()
    scaled = np.log(numbers) if low > 0 and high / low > LOG_RATIO else numbers
    spread = float(np.ptp(scaled)) or 1.0
    return ((scaled - scaled.min()) / spread).tolist(), f"{low:.3g}", f"{high:.3g}"


@styled
def parallel_coordinates(
    names: Sequence[str], rows: Sequence[TrialRow], metric: str, maximise: bool
) -> Figure:
    """Draw each trial as a line through its settings, from top to bottom, down to its value.

    The axes lie one below the other, so that a telephone shows all of them. A line has a gap
    where its trial does not have a setting.
    """
    axes = axes_of(0.62 * (len(names) + 1) + 0.3)
    reached = [row.reached(metric) for row in rows]
    columns: dict[str, list[float]] = {}
    for name in names:
        has = [name in row.read_params for row in rows]
        known = [row.read_params[name] for row in rows if name in row.read_params]
        places, low, high = _on_axis(known)
        filled = iter(places)
        columns[name] = [next(filled) if one else np.nan for one in has]
        _axis_line(axes, -len(columns), name, low, high)
    places, low, high = _on_axis(reached)
    columns[metric] = list(places)
    _axis_line(axes, -len(columns), metric, low, high)
    order = np.argsort(reached if maximise else [-value for value in reached])
    lines = [[(column[i], -y) for y, column in enumerate(columns.values(), 1)] for i in order]
    ranks = np.linspace(0, 1, len(rows))
    widths = 0.5 + 1.5 * ranks**3
    collected = LineCollection(
        lines, cmap="cividis_r", array=ranks, linewidths=widths, alpha=0.7,
        rasterized=len(rows) > MAX_VECTORS,
    )  # fmt: skip
    axes.add_collection(collected)
    axes.set(xlim=(-0.02, 1.02), ylim=(-len(columns) - 0.2, -0.45))
    axes.axis("off")
    return figure_of(axes)


def _axis_line(axes: Axes, y: float, name: str, low: str, high: str) -> None:
    axes.plot([0, 1], [y, y], color=SOFT, linewidth=1, zorder=3)
    for x, text, side, colour in (
        (0, fitted(low, 75, 8), "left", SOFT),
        (0.5, fitted(name, 140, 8), "center", INK),
        (1, fitted(high, 75, 8), "right", SOFT),
    ):
        axes.text(
            x, y + 0.08, text, ha=side, va="bottom", color=colour, fontsize=8, bbox=BEHIND,
            zorder=4,
        )  # fmt: skip


@styled
def families(found: Sequence[Family], marks: Marks) -> Figure:
    """Draw the values of each model's trials on a line of its own, with their median."""
    axes = axes_of(0.36 * len(found) + 0.6, marks.metric)
    for y, one in zip(range(len(found), 0, -1), found, strict=True):
        colour, shape = marks.looks[one.model]
        for values, inside in ((one.values, colour), (one.stopped, "none")):
            axes.plot(
                values, [y] * len(values), shape, markeredgecolor=colour, markerfacecolor=inside,
                alpha=0.6, rasterized=len(values) > MAX_VECTORS,
            )  # fmt: skip
        if one.median is not None:
            axes.plot([one.median] * 2, [y - 0.3, y + 0.3], color=INK, linewidth=2)
    names = [f"{fitted(one.model, 90)} ({one.trials})" for one in found]
    axes.set_yticks(range(len(found), 0, -1), names)
    axes.set_ylim(0.4, len(found) + 0.6)
    axes.tick_params(axis="y", length=0)
    return figure_of(axes)
