"""The test of an extended study: kept if the tested model is one that was tested before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuner.ledger.extension import eras

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuner.ledger.journal import Record
    from tuner.study.context import Context
    from tuner.study.final import FinalModel

# Records that need the test split. The test itself is last, so that a kill leaves none out.
KEPT = ("ensemble", "leaky_twin", "test")
OF_THE_LEDGER = ("seq", "time_ms", "kind")


def keep_test(study: Context, model: FinalModel) -> bool:
    """Record the test of a model again if the study has tested it before an extension.

    Returns:
        True if it has; then nobody has looked at the test split again.
    """
    fused = study.ledger.last("fused")
    for era in reversed(eras(study.ledger.records())[:-1]):
        if "test" in era and _tested(era) == _identity(model.trial_id, fused, model.is_fusion):
            for kind in KEPT:
                if kind in era and study.ledger.last(kind) is None:
                    fields = {k: v for k, v in era[kind].items() if k not in OF_THE_LEDGER}
                    study.record(kind, **{**fields, "kept": True})
            study.terminal.say("test: the winner is the model that was tested before, once")
            return True
    return False


def _tested(era: Mapping[str, Record]) -> Any:
    test, fused = era["test"], era.get("fused")
    return _identity(test["trial_id"], fused, bool(fused and fused["chosen"]))


def _identity(trial_id: str, fused: Record | None, is_fusion: bool) -> Any:
    """Return what tells tested models apart: the trial, or the members of a fusion."""
    return fused["members"] if is_fusion and fused else trial_id
