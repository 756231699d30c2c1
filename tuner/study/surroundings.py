"""What a space file is read for: its data, the weights at hand, the study if it has begun."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.config.fill_in import DEMO_ROOT, Choice
from tuner.config.searching import SLUG
from tuner.ledger.journal import StudyPaths, first_record
from tuner.study.features import catalog_of, data_source

if TYPE_CHECKING:
    from pipelines.facts import DataFacts
    from pipelines.storage import Folder
    from tuner.config.data import Place


class AtHand:
    """Surroundings on this machine; each is looked at once.

    Args:
        storage: Folder of all studies.
    """

    def __init__(self, storage: Folder) -> None:
        self._storage = storage
        self._facts: dict[Place, DataFacts] = {}

    def facts(self, place: Place) -> DataFacts:
        """See ``Surroundings.facts``."""
        if place not in self._facts:
            self._facts[place] = self._look(place)
        return self._facts[place]

    def _look(self, place: Place) -> DataFacts:
        if place.root == DEMO_ROOT:
            from pipelines.demo import demo_facts

            return demo_facts()
        from pipelines.facts import look

        return look(catalog_of(place, data_source(place.root, self._storage)))

    def missing_networks(self) -> Mapping[str, str]:
        """See ``Surroundings.missing_networks``."""
        from pipelines.features.networks import store

        return store.missing()

    def has_bf16(self) -> bool:
        """See ``Surroundings.has_bf16``; the nodes of a cluster are taken to be like this one."""
        try:  # without torch, which takes a second to import
            flags = Path("/proc/cpuinfo").read_text().split()
        except OSError:
            return False
        return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)

    def recorded(self, study: str) -> Sequence[Choice] | None:
        """See ``Surroundings.recorded``; a study of an earlier version has no choices."""
        if not re.fullmatch(SLUG, study):
            return None
        record = first_record(StudyPaths(self._storage, study, "").folder)
        if record is None:
            return None
        return [Choice(**choice) for choice in record.get("choices", [])]
