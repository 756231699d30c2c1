"""The data of a run: splits of feature sets as MLflow's dataset inputs, with digest and split."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CONTEXT = "mlflow.data.context"  # MLflow's tag of an input for what it was used
MAX_NAME = 400  # characters; MLflow takes 500


@dataclass(frozen=True)
class Data:
    """One split of a feature set.

    Attributes:
        name: The data set and the split.
        digest: Fingerprint of the feature set, a hash of the audio, its labels and all settings.
        context: The split whose part it played: ``train``, ``val`` or ``test``.
        source: Address of the audio, without secrets.
        profile: Facts about it as JSON.
    """

    name: str
    digest: str
    context: str = field(compare=False)
    source: str = field(compare=False)
    profile: str = field(compare=False)

    def as_input(self) -> Any:
        """Return MLflow's ``DatasetInput``."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        scheme = urlsplit(self.source).scheme if "://" in self.source else "local"
        kind, key = ("http", "url") if scheme in ("http", "https") else (scheme, "uri")
        dataset = Dataset(
            self.name, self.digest, kind, json.dumps({key: self.source}), profile=self.profile
        )
        return DatasetInput(dataset, [InputTag(CONTEXT, self.context)])


def splits_of(one: Mapping[str, Any], address: str) -> Iterator[Data]:
    """Yield the splits of a feature set that have clips.

    Args:
        one: The set as the ledger records it.
        address: Address of the audio; empty in ledgers of early versions.
    """
    source = address or one["path"]
    name = PurePath(source.rstrip("/")).stem[:MAX_NAME] or "data"
    for split, clips in one["clips"].items():
        if clips:
            profile = {"split": split, "clips": clips, "classes": len(one["labels"])}
            digest = one["fingerprint"][:36]
            facts = json.dumps(profile | {"tracks of all splits": one["tracks"]})
            yield Data(f"{name} {split}", digest, split, source, facts)


def used_by(stage: str, digests: set[str], sets: Sequence[Data], fit_of_all: bool) -> list[Data]:
    """Return the splits that a trial has used.

    Args:
        stage: Stage of the trial; only a final run is tested.
        digests: Fingerprints of its feature sets.
        sets: All splits of all feature sets of the study.
        fit_of_all: True for a final fit, which learns from the validation tracks too.
    """
    return [
        replace(one, context="train") if fit_of_all and one.context == "val" else one
        for one in sets
        if one.digest in digests and (one.context != "test" or stage == "final")
    ]
