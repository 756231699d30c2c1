"""The figure of a comparison: how far each method's choice is behind, over the epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tuner.report.figures import COLOURS, SOFT, axes_of, figure_of, legend, log_axis, styled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from tuner.simulation.comparison import Method

NUM_PLACES = 120
DASHES = ("-", "--", "-.", ":")


@styled
def draw(methods: Sequence[Method]) -> Figure:
    """Draw medians over the seeds, with the first and the last method's band of 10 to 90 %."""
    curves = methods[0].curves
    label = f"{curves.ranking.metric} behind the best"
    axes = axes_of(3.0, "epochs of all trials", label, width=7.0)
    most = max(method.epochs.median for method in methods)
    epochs = np.geomspace(max(1.0, most / 300), most, NUM_PLACES)
    for number, method in enumerate(methods):
        bands = method.behind_after([*epochs])
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % 4]
        medians = [band.median if np.isfinite(band.median) else np.nan for band in bands]
        axes.step(epochs, medians, dash, color=colour, where="post", label=method.name)
        if number in (0, len(methods) - 1):
            low, high = ([getattr(b, end) for b in bands] for end in ("low", "high"))
            known = np.isfinite(high)
            axes.fill_between(
                epochs, low, high, where=known, step="post", color=colour, alpha=0.12, lw=0
            )
    axes.axhline(curves.standard_error / 2, color=SOFT, lw=0.8, ls=":")
    log_axis(axes)
    axes.set_ylim(0, None)
    legend(axes)
    return figure_of(axes)
