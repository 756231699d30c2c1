"""The plan of a confirmation: the runs that are missing, and those that the limits hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuner.ledger.states import State
from tuner.ledger.timing import Course, course_of
from tuner.trials.plan import Proposal
from tuner.trials.reserve import Reserve, smaller

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tuner.ledger.trial_rows import TrialRow
    from tuner.study.context import Context
    from tuner.trials.limits import Limits


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
    plan, rows = study.space.template.confirm, study.rows()
    reserve = Reserve(study.space, study.ledger.records())

    def runs(
        num_top: int,
        num_seeds: int,
        more: Sequence[TrialRow] = (),
        beside: Sequence[TrialRow] = (),
    ) -> list[Course]:
        repeated = [*top[:num_top], *beside]
        wanted = [*missing_runs(repeated, num_seeds, rows), *missing_runs(more, 1, rows)]
        return [course_of(one.experiment.model_dump(mode="json"), "confirm") for one in wanted]

    final = course_of(top[0].experiment.model_dump(mode="json"), "final")
    first = (len(top), plan.seeds)
    sizes = smaller(*first)
    fit = (one for one in sizes if not limits.too_dear(reserve.cost_of(runs(*one), final)))
    chosen = next(fit, (1, 1))
    less = []
    if chosen != first:
        full, cost = (reserve.cost_of(runs(*one), final) for one in (first, chosen))
        lacks = limits.too_dear(full) or ""
        less.append(
            f"{chosen[0]} x {chosen[1]} runs instead of {first[0]} x {first[1]}, with which the "
            f"rest would take {limits.compared(full, lacks)}"
        )
        if short := limits.too_dear(cost):
            less.append(f"even this takes {limits.compared(cost, short)}; one run is always made")
    fits: list[TrialRow] = []
    left_out: list[str] = []
    for row in others:
        cost = reserve.cost_of(runs(*chosen, [*fits, row]), final)
        if (short := limits.too_dear(cost)) is None:
            fits.append(row)
            continue
        left_out.append(
            f"{row.trial_id} ({row.model}) is left out of the fusion: with its run over all folds "
            f"the rest would take {limits.compared(cost, short)}"
        )
    is_beside = default is not None and default not in top[: chosen[0]]
    without = ""
    if default and is_beside and [*missing_runs([default], chosen[1], rows)]:
        cost = reserve.cost_of(runs(*chosen, fits, [default]), final)
        if (short := limits.too_dear(cost)) is not None:
            without = (
                "the default configuration is left out: with its runs the rest would take "
                f"{limits.compared(cost, short)}"
            )
    return {
        "top": chosen[0], "seeds": chosen[1], "less": less,
        "for_fusion": [row.trial_id for row in fits], "left_out": left_out,
        "default": default.trial_id if default and not without else None,
        "default_left_out": without,
    }  # fmt: skip
