"""Facts and description of a registered version, from the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.plain_text import for_markdown
from tuner.ledger.doubts import against_champion
from tuner.ledger.extension import newest_of
from tuner.ledger.summary import summarise
from tuner.ledger.trial_rows import num_folds
from tuner.ledger.trust import clips_in_words, leak_in_words, scores_in_words
from tuner.tracking.datasets import splits_of
from tuner.tracking.shown import tested

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tuner.ledger.journal import Record
    from tuner.ledger.summary import Summary
    from tuner.tracking.datasets import Data


ADDRESS = "MODEL_ADDRESS"  # in a description, replaced by ``models:/NAME/VERSION``


@dataclass(frozen=True)
class ModelFacts:
    """Facts that decide on registration and are kept with the version.

    Attributes:
        study: Name of the study.
        trial_id: The trial that trained the weights.
        fingerprint: Fingerprint of the feature set.
        test_split: Digest of the tracks the model was tested on.
        test_f1_macro: Macro F1 on these tracks.
        test_classes: Digest of the tracks and their classes; empty in studies of early versions.
        leak: Description of a leak between the splits; empty if the audit passed.
        doubt: Reason why the model becomes no champion; empty if it may.
        scores: Test scores by metric, as the run of the model has them.
        tested_ms: Time of the test, Unix milliseconds.
        tested_on: The test split; None if it is unknown.
        description: Description of the version in Markdown.
        without_alias: True if the study has registered the model before, and without alias.
    """

    study: str
    trial_id: str
    fingerprint: str
    test_split: str
    test_f1_macro: float
    leak: str
    doubt: str = ""
    test_classes: str = ""
    scores: Mapping[str, Any] = field(default_factory=dict)
    tested_ms: int = 0
    tested_on: Data | None = None
    description: str = ""
    without_alias: bool = False

    def tags(self) -> dict[str, str]:
        """Return the tags of a version, with numbers in full precision."""
        names = ("study", "trial_id", "fingerprint", "test_split")
        return {
            **{name: getattr(self, name) for name in names},
            "test_f1_macro": repr(float(self.test_f1_macro)),
            "leakage_passed": str(not self.leak).lower(),
            **({"test_classes": self.test_classes} if self.test_classes else {}),
            **({"no_champion": self.doubt} if self.doubt else {}),
        }


def facts_of(records: Sequence[Record], fingerprint: str) -> ModelFacts:
    """Return the facts about the tested model of a study.

    Args:
        records: The study's ledger, with its test.
        fingerprint: Fingerprints of the model's feature sets, with spaces between them.
    """
    summary = summarise(records)
    newest = newest_of(records)
    test, features = newest["test"], newest["features"]["features"]
    data = [
        split
        for one in features
        for split in splits_of(one, newest["study"].get("data") or "")
        if split.digest in fingerprint.split() and split.context == "test"
    ]
    assert summary.leakage is not None
    registered = summary.registered
    return ModelFacts(
        study=summary.study,
        trial_id=test["trial_id"],
        fingerprint=fingerprint,
        test_split=test["split_digest"],
        test_f1_macro=test["metrics"]["f1_macro"],
        leak="" if summary.leakage.passed else leak_in_words(summary.leakage),
        doubt=against_champion(summary),
        test_classes=test.get("classes_digest", ""),
        # Equal to those of its run, which MLflow stores once.
        scores=tested(test["metrics"]),
        tested_ms=test["time_ms"],
        tested_on=data[0] if data else None,
        description="\n\n".join(_paragraphs(summary, newest["study"].get("data"), data)),
        without_alias=registered.version is not None and registered.alias is None,
    )


def _paragraphs(summary: Summary, address: str | None, data: Sequence[Data]) -> Iterator[str]:
    test, files = summary.test, summary.features[0]
    assert test is not None
    assert summary.leakage is not None
    yield f"**Test**: {scores_in_words(test.metrics)} that no decision has used."
    yield (
        f"**Classes** ({len(test.labels)}), in the order of the probabilities: "
        f"{', '.join(map(for_markdown, test.labels))}."
    )
    clips = clips_in_words(files["clips"], num_folds(summary.config))
    where = f" of {for_markdown(address)}" if address else ""
    digest = f" (feature set {data[0].digest})" if data else ""
    yield f"**Data**: {files['tracks']['listed']} files{where}{digest}; clips: {clips}."
    leak = leak_in_words(summary.leakage)
    yield f"**Leakage audit**: {leak if summary.leakage.passed else for_markdown(leak)}."
    if doubt := against_champion(summary):
        yield f"**No champion**: {for_markdown(doubt)}"
    yield (
        f"**Trained by** `python -m tuner.run`, study {for_markdown(summary.study)}: the "
        f"{summary.tested}, {for_markdown(summary.winner.model if summary.winner else '')}."
    )
    yield (
        "**To use it**:\n\n```\n"
        f"python -m tuner.predict {ADDRESS} FILE\n"
        f"mlflow models serve -m {ADDRESS} --env-manager local\n```"
    )
