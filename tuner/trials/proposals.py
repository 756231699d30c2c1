"""The next trial of a search: also of an extended one, whose space may have changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tuner.trials.fitting import fit
from tuner.trials.samplers import propose

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tuner.config import Space
    from tuner.ledger.trial_rows import TrialRow
    from tuner.trials.observed import Earlier
    from tuner.trials.plan import Proposal


class Proposals:
    """Proposals of the sampler that a space names.

    Args:
        space: Space to sample.
        most: Number of trials of the search; infinity if something else ends it.
        earlier: Trials of earlier studies, with their weights.
        others: Trials from before an extension changed the space, which are read in the
            parameters of this one.
    """

    def __init__(
        self, space: Space, most: float, earlier: Earlier = (), others: Iterable[TrialRow] = ()
    ) -> None:
        self._space, self._most, self._earlier = space, most, earlier
        self._params = {
            row.trial_id: fit(space, row).params for row in others if not row.is_left_out
        }

    def next(self, trials: Sequence[TrialRow]) -> Proposal | None:
        """Propose the next trial, given all so far in the order of the ledger."""
        ordinal = 1 + trials[-1].ordinal if trials else 0
        if ordinal >= self._most:
            return None
        learned: Sequence[TrialRow] = trials
        if self._params or any(row.is_left_out for row in trials):
            learned = [
                replace(row, params=self._params.get(row.trial_id, row.params))
                for row in trials
                if not row.is_left_out
            ]
        return propose(self._space, learned, self._earlier, ordinal)
