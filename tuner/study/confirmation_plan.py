"""The plan of a confirmation: the runs that are missing, and those that the limits hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuner.ledger.states import State
from tuner.ledger.timing import course_of
from tuner.trials.plan import Proposal
from tuner.trials.reserve import Reserve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tuner.ledger.cost import Cost
    from tuner.ledger.trial_rows import TrialRow
    from tuner.study.context import Context
    from tuner.trials.limits import Limits
    from tuner.trials.reserve import Extent


def missing_runs(
    top: Iterable[TrialRow], num_seeds: int, rows: dict[str, TrialRow]
) -> Iterator[Proposal]:
    """Propose the runs of configurations with new seeds that have not ended yet."""
    ordinal = 0
    for row in top:
        for seed in range(row.seed + 1, row.seed + 1 + num_seeds):
            head, _, digest = row.trial_id.rpartition("-")
            head = head if head == "default" else f"c{row.ordinal:03d}"
            trial_id = f"{head}-s{seed}-{digest}"
            known = rows.get(trial_id)
            # In earlier versions a full disk stopped a confirmation run early; a limit does today.
            stopped = known and known.status is State.STOPPED_EARLY and not known.breaks
            if known is None or known.is_unfinished or stopped:
                yield Proposal(
                    trial_id, "confirm", seed, row.experiment, ordinal, row.params,
                    parent_trial=row.trial_id,
                )  # fmt: skip
            ordinal += 1


def fitting(
    study: Context,
    limits: Limits,
    top: list[TrialRow],
    others: list[TrialRow],
    default: TrialRow | None,
) -> dict[str, Any]:
    """Decide what the limits hold of the confirmation, from the times that the ledger has.

    Args:
        study: The study.
        limits: Its limits.
        top: Configurations to confirm, best first.
        others: Trials that would run again for a fusion alone.
        default: The default configuration, the first that is left out; None without one.
    """
    rows, reserve = study.rows(), Reserve(study.space, study.ledger.records())
    fit = course_of(top[0].experiment.model_dump(mode="json"), "final")

    def missing(extent: Extent) -> list[Proposal]:
        chosen = top[: extent.top]
        beside = [default] if extent.default and default and default not in chosen else []
        return [*missing_runs([*chosen, *beside], extent.seeds, rows)]

    def cost(extent: Extent, more: Sequence[TrialRow] = ()) -> Cost:
        wanted = [*missing(extent), *missing_runs(more, 1, rows)]
        runs = [course_of(one.experiment.model_dump(mode="json"), "confirm") for one in wanted]
        return reserve.cost_of(runs, fit if extent.final else None)

    tried = reserve.extents(len(top), default=default is not None)
    full = tried[0]
    chosen = next((one for one in tried if not limits.too_dear(cost(one))), tried[-1])
    if missing(chosen._replace(default=full.default)) == missing(chosen):
        chosen = chosen._replace(default=full.default)
    less = []
    if chosen != full and (lacks := limits.too_dear(cost(full))):
        compared = limits.compared(cost(full), lacks)
        less.append(f"{_in_words(chosen, full)}: with all of it the rest would take {compared}")
    if short := limits.too_dear(cost(chosen)):
        compared = limits.compared(cost(chosen), short)
        less.append(f"{'even this' if less else 'it'} takes {compared}; one run is always made")
    fits: list[TrialRow] = []
    left_out: list[str] = []
    for row in others:
        needed = cost(chosen, [*fits, row])
        if (short := limits.too_dear(needed)) is None:
            fits.append(row)
            continue
        left_out.append(
            f"{row.trial_id} ({row.model}) is left out of the fusion: with its run over all folds "
            f"the rest would take {limits.compared(needed, short)}"
        )
    return {
        "top": chosen.top, "seeds": chosen.seeds, "final": chosen.final, "less": less,
        "for_fusion": [row.trial_id for row in fits], "left_out": left_out,
        "default": default.trial_id if default and chosen.default else None,
    }  # fmt: skip


def _in_words(chosen: Extent, full: Extent) -> str:
    """Say what is left out of a confirmation."""
    parts = []
    if (chosen.top, chosen.seeds) != (full.top, full.seeds):
        parts.append(f"{chosen.top} x {chosen.seeds} runs instead of {full.top} x {full.seeds}")
    left_out = ["the default configuration"] * (chosen.default < full.default)
    left_out += ["the final fit"] * (chosen.final < full.final)
    parts += [f"without {' and '.join(left_out)}"] if left_out else []
    return ", ".join(parts)
