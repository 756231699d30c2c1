"""The style of the report's figures: SVG with the page's own font, drawn without pyplot."""

from __future__ import annotations

import io
import math
import re
import warnings
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import imsave
from matplotlib.textpath import text_to_path
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from tuner.ledger.trial_rows import TrialRow

WIDTH = 4.4  # inches: half of a page on a screen, all of it on a telephone, with readable text
POINTS = 72  # per inch
INK, SOFT, FAINT, GRID = "#1f2933", "#52606d", "#b8c2cc", "#e4e7eb"
# Okabe and Ito's colours, which people with colour-blindness can tell apart; without yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
SHAPES = "osD^vP*"
ACCENT, WARM = COLOURS[0], COLOURS[1]

MAX_TIPS = 300  # marks that say what they are; more would make the page heavy
MAX_VECTORS = 1000  # trials; the marks and lines of more are pixels in the SVG
PIXELS_PER_INCH = 200
FONT_POINTS = 9
STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # class names with two $ are names
    "svg.fonttype": "none",
    "font.size": FONT_POINTS,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
}
_TIP = "tip "
_UNUSED_ID = re.compile(r' id="(?![mpC]?[0-9a-f]{8,}"|tip )[^"]*"')

styled = mpl.rc_context(STYLE)  # a decorator of functions that draw a figure


def as_svg(figure: Figure, name: str) -> str:
    """Return a figure as SVG for the page; each needs a name of its own.

    Equal studies get equal pages, and no two figures share the ids of their parts.
    """
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser has other fonts than the one that measures the text here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        metadata = {"Date": None, "Creator": None}
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=metadata, dpi=PIXELS_PER_INCH
        )
    return _slimmed(buffer.getvalue())


def _slimmed(svg: str) -> str:
    """Drop what a page does not need of an SVG, and turn the tips into titles."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    # A tenth of a point is finer than a pixel.
    svg = re.sub(
        r'( d="[^"]*"|(?:x|y)="[-\d.]+")',
        lambda found: re.sub(r"(\d\.\d)\d+", r"\1", found[0]),
        svg,
    )
    svg = _UNUSED_ID.sub("", svg)
    return re.sub(rf'<g id="{_TIP}([^"]*)">', r"<g><title>\1</title>", svg)


def axes_of(height: float, x_label: str = "", y_label: str = "", width: float = WIDTH) -> Axes:
    """Return the axes of a new figure; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(fitted(x_label, 0.7 * POINTS * width))
    axes.set_ylabel(fitted(y_label, 0.7 * POINTS * height))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=2)
    return axes


def figure_of(axes: Axes) -> Figure:
    """Return the figure of axes."""
    found = axes.figure
    assert isinstance(found, Figure)
    return found


def few_numbers(axes: Axes, most: int = 9, whole: bool = True) -> None:
    """Show a few plain numbers on the x-axis, without fractions if they are whole."""
    axes.xaxis.set_major_locator(MaxNLocator(most, integer=whole))
    axes.xaxis.set_major_formatter("{x:g}")


def log_axis(axes: Axes) -> None:
    """Make the x-axis logarithmic, with plain numbers instead of formulas."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=3))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def tip(text: str) -> str:
    """Return the id of a mark that shows a text when a pointer rests on it."""
    return _TIP + text


def about(row: TrialRow, metric: str) -> str:
    """Return what the mark of a trial says when a pointer rests on it."""
    value = row.value(metric)
    reached = "" if value is None else f", {metric} {value:.3f}"
    return short(f"{row.trial_id} ({row.model}){reached}, {row.status}", 120)


def legend(axes: Axes) -> None:
    """Name the lines and marks of a figure above it, if they have names.

    Names inside a figure would lie on what it shows. The figure grows by its legend.
    """
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    figure = figure_of(axes)
    room = POINTS * figure.get_figwidth()
    names = [fitted(label, room - 50) for label in labels]
    columns = max(1, int(room / (max(map(points_of, names)) + 45)))
    rows = math.ceil(len(names) / columns)
    figure.set_figheight(figure.get_figheight() + 0.19 * rows)
    figure.legend(handles, names, loc="outside upper left", ncols=columns, handletextpad=0.4)


def points_of(text: str, size: float = FONT_POINTS) -> float:
    """Return the width of a text in points.

    What is not ASCII counts as much as the widest letter: this font may lack it, and the
    browser has others.
    """
    text = re.sub(r"[^ -~]", "W", text)
    font = FontProperties(size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def fitted(name: object, points: float, size: float = FONT_POINTS) -> str:
    """Return a name for a figure, cut in its middle to a width; the tables have all of it."""
    text = short(name, 120)
    while len(text) > 1 and (width := points_of(text, size)) > points:
        text = short(text, max(1, min(len(text) - 1, int(len(text) * points / width))))
    return text


def short(name: object, length: int) -> str:
    """Return a text without control characters, which SVG forbids, and cut in its middle.

    Both ends stay, because names of settings differ at their ends.
    """
    text = "".join(c if c.isprintable() else " " for c in str(name))
    end = (length - 1) // 2
    return text if len(text) <= length else f"{text[: length - 1 - end]}…{text[len(text) - end :]}"


def look_of(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return a colour and a shape for each name; from the eighth on they repeat."""
    return {
        name: (COLOURS[i % len(COLOURS)], SHAPES[i % len(SHAPES)])
        for i, name in enumerate(dict.fromkeys(names))
    }


def spectrogram(levels: NDArray[np.float32], shown_db: float) -> bytes:
    """Draw levels ``[f, m]`` in dB as PNG, low frequencies at the bottom."""
    buffer = io.BytesIO()
    top = float(levels.max())
    imsave(
        buffer, levels, format="png", cmap="magma", origin="lower", vmin=top - shown_db, vmax=top
    )
    return buffer.getvalue()
