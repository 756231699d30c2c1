"""What a study takes over from earlier ones: their trials, weighed by how alike the spaces are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError
from pipelines.plain_text import shorten
from tuner.errors import SpaceError, UsageError
from tuner.ledger.extension import changed_space, newest_of
from tuner.ledger.journal import recorded
from tuner.ledger.locate import study_folder
from tuner.ledger.states import State
from tuner.ledger.trial_rows import TrialRow, TrialRows
from tuner.trials.fitting import fit
from tuner.trials.likeness import alike, space_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipelines.storage import Folder
    from tuner.config import Space
    from tuner.config.ranges import Range
    from tuner.ledger.journal import Ledger
    from tuner.trials.observed import Earlier

OTHER_DATA = 0.5
"""Weight of a study of other data, as a share: what is good there is often, not always, good."""


def load_earlier(
    space: Space, storage: Folder, fingerprints: Sequence[str]
) -> list[dict[str, Any]]:
    """Read the studies that a space names, as the ledger pins them.

    Args:
        space: The space.
        storage: Folder of all studies, for those that are named without a folder.
        fingerprints: Feature sets of the new study.

    Raises:
        UsageError: There is no such study, it is this one, or nothing of it can be used.
        StudyError: Its ledger is damaged.
    """
    found = []
    for name in space.template.search.warm_start:
        folder = study_folder(name, str(storage))
        records = recorded(folder)
        newest = newest_of(records)
        began = changed_space(newest)
        if folder == (storage / "studies" / space.name).resolved():
            raise UsageError(
                f"search.warm_start: {shorten(name)} is this study itself; --extend adds to it"
            )
        found.append(_pinned(space, began, newest, TrialRows(records), fingerprints))
    return found


def _pinned(
    space: Space,
    began: dict[str, Any],
    newest: dict[str, Any],
    rows: TrialRows,
    fingerprints: Sequence[str],
) -> dict[str, Any]:
    """Return what is taken over from one study."""
    metric = space.template.search.score
    ended = [r for r in rows.values() if r.stage == "search" and r.value(metric) is not None]
    trials, misfits = [], 0
    blocks = space.alternatives
    for row in ended:
        found = fit(space, row)
        # Without its alternative, a trial says nothing of the ranges below.
        if not found.params or any(name in found.misfits for name in blocks):
            misfits += 1
            continue
        trials.append({
            "trial_id": row.trial_id, "params": found.params, "model": row.model,
            "status": row.status, "epochs": len(row.history), "value": row.value(metric),
        })  # fmt: skip
    sets = {one["fingerprint"] for one in newest.get("features", {}).get("features", ())}
    same_data = not sets.isdisjoint(fingerprints)
    try:
        likeness = alike(space, space_of(began["settings"]))
    except UserError as error:
        raise UsageError(
            f"search.warm_start: this version does not know the settings of {began['study']!r} "
            f"({error}); leave it out"
        ) from error
    weight = likeness * (1.0 if same_data else OTHER_DATA)
    if not trials or not weight:
        reason = "none of its trials fits the ranges" if ended else "none of its trials has ended"
        raise UsageError(
            f"search.warm_start: nothing can be learned from {began['study']!r}: {reason} with a "
            f"value of {metric}; leave it out"
        )
    return {
        "study": began["study"], "weight": round(weight, 4), "likeness": round(likeness, 4),
        "same_data": same_data, "metric": metric, "misfits": misfits, "trials": trials,
    }  # fmt: skip


def earlier_trials(space: Space, ledger: Ledger) -> Earlier:
    """Return the pinned trials of earlier studies with their weights, as samplers take them.

    Args:
        space: The space, which an extension may have changed since they were pinned.
        ledger: The ledger of the study.
    """
    pinned = (ledger.last("warm_start") or {"studies": []})["studies"]
    ranges = space.ranges
    return [
        (_row(study, one, {k: v for k, v in one["params"].items() if _is_in(ranges, k, v)}),
         study["weight"])
        for study in pinned for one in study["trials"]
    ]  # fmt: skip


def _is_in(ranges: Mapping[str, Range], name: str, value: Any) -> bool:
    try:
        return name in ranges and ranges[name].settle(value) is not None
    except SpaceError:
        return False


def _row(study: dict[str, Any], one: dict[str, Any], params: dict[str, Any]) -> TrialRow:
    metrics = {study["metric"]: one["value"]}
    return TrialRow(
        trial_id=one["trial_id"], stage="search", ordinal=0, seed=0, params=params,
        recorded_config={"name": study["study"], "model": {"name": one["model"]}},
        parent_trial=None, history=[(one["epochs"], metrics)], status=State(one["status"]),
        best={"epoch": one["epochs"], "metrics": metrics},
    )  # fmt: skip
