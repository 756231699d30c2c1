"""What a registered version says of itself: its facts from the ledger, and a description."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tuner.ledger.doubts import against_champion
from tuner.ledger.summary import summarise
from tuner.ledger.trust import leak_in_words
from tuner.tracking.datasets import splits_of
from tuner.tracking.registry import ADDRESS, ModelFacts
from tuner.tracking.shown import tested

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tuner.ledger.journal import Record
    from tuner.ledger.summary import Summary
    from tuner.tracking.datasets import Data

# Characters that Markdown or HTML may take for something else than themselves.
MARKS = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|$~&])")


def facts_of(records: Sequence[Record], fingerprint: str) -> ModelFacts:
    """Return the facts about the tested model of a study.

    Args:
        records: The study's ledger, with its test.
        fingerprint: Fingerprints of the model's feature sets, with spaces between them.
    """
    summary = summarise(records)
    newest = {record["kind"]: record for record in records}
    test, features = newest["test"], newest["features"]["features"]
    data = [
        split
        for one in features
        for split in splits_of(one, newest["study"].get("data") or "")
        if split.digest in fingerprint.split() and split.context == "test"
    ]
    assert summary.leakage is not None
    return ModelFacts(
        study=summary.study,
        trial_id=test["trial_id"],
        fingerprint=fingerprint,
        test_split=test["split_digest"],
        test_f1_macro=test["metrics"]["f1_macro"],
        leak="" if summary.leakage.passed else leak_in_words(summary.leakage),
        doubt=against_champion(summary),
        # Equal to those of its run, which MLflow stores once.
        scores=tested(test["metrics"]),
        tested_ms=test["time_ms"],
        tested_on=data[0] if data else None,
        description="\n\n".join(_paragraphs(summary, newest["study"].get("data"), data)),
    )


def _paragraphs(summary: Summary, address: str | None, data: Sequence[Data]) -> Iterator[str]:
    test, files = summary.test, summary.features[0]
    assert test is not None
    assert summary.leakage is not None
    low, high = test.metrics["ci95"]
    yield (
        f"**Test: macro F1 {test.metrics['f1_macro']:.3f}**, 95 % interval {low:.3f} to "
        f"{high:.3f}, accuracy {test.metrics['accuracy']:.3f}, on {test.metrics['tracks']} tracks "
        "that no decision has used."
    )
    yield (
        f"**Classes** ({len(test.labels)}), in the order of the probabilities: "
        f"{', '.join(map(escaped, test.labels))}."
    )
    clips = ", ".join(f"{number} {split}" for split, number in files["clips"].items())
    where = f" of {escaped(address)}" if address else ""
    digest = f" (feature set {data[0].digest})" if data else ""
    yield f"**Data**: {files['tracks']['listed']} files{where}{digest}; clips: {clips}."
    leak = leak_in_words(summary.leakage)
    yield f"**Leakage audit**: {leak if summary.leakage.passed else escaped(leak)}."
    if doubt := against_champion(summary):
        yield f"**No champion**: {escaped(doubt)}"
    yield (
        f"**Trained by** `python -m tuner.run`, study {escaped(summary.study)}: the "
        f"{summary.tested}, {escaped(summary.winner.model if summary.winner else '')}."
    )
    yield (
        "**To use it**:\n\n```\n"
        f"python -m tuner.predict {ADDRESS} FILE\n"
        f"mlflow models serve -m {ADDRESS} --env-manager local\n```"
    )


def escaped(text: str) -> str:
    """Return a user's text so that Markdown shows it as it is, on one line."""
    return MARKS.sub(r"\\\1", " ".join(text.split()))
