"""The base class of all settings, and a rule between several of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from pipelines.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Block(BaseModel):
    """Settings that are frozen, reject unknown keys and infinity, and convert nothing silently."""

    # A process that only receives settings, such as a decode worker, never builds a validator.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """A check that involves more than one setting.

    Attributes:
        paths: Dotted paths of the settings involved. A fault is reported at the first one that
            was written in the space file.
        check: Returns what is wrong and what to write instead, or None. Takes the whole
            experiment, or what the table that holds the rule says.
    """

    paths: tuple[str, ...]
    check: Callable[..., str | None]


def check(rules: Iterable[Rule], *settings: Block) -> None:
    """Check settings that did not come from a space file.

    Raises:
        SpecError: The settings break some of the rules; the message lists them all.
    """
    faults = [(rule.paths[0], fault) for rule in rules if (fault := rule.check(*settings))]
    if faults:
        raise SpecError("; ".join(f"{name}: {fault}" for name, fault in faults))
