"""The figure of two objectives: each trial by its cost and its score, and the Pareto front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.report.figures import INK, axes_of, few_numbers, figure_of, legend, log_axis, styled
from tuner.report.search_figures import LOG_RATIO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from tuner.ledger.pareto import Point
    from tuner.report.search_figures import Marks


@styled
def front(found: Sequence[Point], best: Sequence[Point], cost: str, marks: Marks) -> Figure:
    """Draw trials over their cost, with a line through the Pareto front.

    Args:
        found: All trials that have both values.
        best: The front, the cheapest first.
        cost: Name of the second objective.
        marks: How trials are marked.
    """
    axes = axes_of(3.0, f"{cost}, less is better", marks.metric)
    costs = [one.cost for one in found]
    if min(costs) > 0 and max(costs) / min(costs) > LOG_RATIO:
        log_axis(axes)
    else:
        few_numbers(axes, whole=False)
    axes.step(
        [one.cost for one in best], [one.score for one in best], where="post", color=INK,
        linewidth=1.4, label="Pareto front",
    )  # fmt: skip
    placed = [(one.cost, one.score, one.trial) for one in found]
    marks.draw(axes, placed)
    marks.tell(axes, placed)
    marks.name_models(axes)
    axes.margins(x=0.06, y=0.1)
    legend(axes)
    return figure_of(axes)
