"""Reasons to read a study's score with care, and those for which its model is no champion."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tuner.ledger.trial_rows import is_reshuffled
from tuner.ledger.trust import leak_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tuner.ledger.summary import Summary

# Below these, a score says too little; rules of thumb, not theory.
FEW_TRACKS = 30
FEW_OF_A_CLASS = 5
WIDE_INTERVAL = 0.2
LOW_RECALL = 0.1
SURE = 0.975  # share of resamplings at which the 95 % interval of a difference is above 0
# All right on fewer test tracks is no better than tossing a coin, at a level of 95 %.
FEWEST_TEST_TRACKS = 6


class Check(NamedTuple):
    """One reason for doubt.

    Attributes:
        find: Yields the doubt in words, if the study gives reason for it.
        remedy: What to try, if a model with this doubt becomes no champion; empty if it may.
    """

    find: Callable[[Summary], Iterator[str]]
    remedy: str = ""


def doubts(study: Summary) -> Iterator[str]:
    """Find reasons to doubt the score in the study's own numbers."""
    for check in CHECKS:
        yield from check.find(study)


def against_champion(study: Summary) -> str:
    """Return why the tested model becomes no champion, and what to try; empty if it may."""
    found = ((check.remedy, [*check.find(study)]) for check in CHECKS if check.remedy)
    return "; ".join(f"{'; '.join(texts)}: {remedy}" for remedy, texts in found if texts)


def _leak(study: Summary) -> Iterator[str]:
    if study.leakage and not study.leakage.passed:
        yield (
            f"the data is {leak_in_words(study.leakage)}; the scores do not show how well other "
            "recordings would be recognised, and the model was not registered"
        )
    if study.leakage and (number := study.leakage.label_conflicts):
        yield (
            f"{number} pairs of copies of one recording have different labels; no model can get "
            "all of them right"
        )


def _remarks(study: Summary) -> Iterator[str]:
    yield from study.remarks


def _overlap(study: Summary) -> Iterator[str]:
    for one in study.provenance:
        if overlap := one.overlaps.get(study.layout):
            yield (
                f"the data that {one.name} was trained on is {overlap} with this data set "
                f"({study.layout}); the scores may be too good"
            )


def _pace(study: Summary) -> Iterator[str]:
    if study.pace and study.pace.is_short:
        yield str(study.pace)


def _few_val(study: Summary) -> Iterator[str]:
    number = study.ranking.num_tracks
    if number and number < FEW_TRACKS:
        yield (
            f"only {number} validation tracks chose the winner; a single one moves their accuracy "
            f"by {1 / number:.2f}"
        )


def _tied(study: Summary) -> Iterator[str]:
    ranking, values = (
        study.ranking,
        [study.value(row) for row in study.ranked if not row.is_partial],
    )
    if not ranking.num_tracks or not ranking.maximise or not values:
        return
    best = max(values)
    tied = sum(value >= ranking.bar(best) for value in values)
    if values.count(1.0) > 1:
        yield (
            f"{values.count(1.0)} trials reached the highest possible {study.metric}, so "
            f"validation cannot tell them apart; the lower {ranking.tie_breaker} decided"
        )
    elif tied > 1:
        yield (
            f"{tied} of {len(values)} trials are within one standard error of the best "
            f"{study.metric} (from {ranking.bar(best):.3f} to {best:.3f}); the lower "
            f"{ranking.tie_breaker} decided, and with other tracks another might have won"
        )


def _fall(study: Summary) -> Iterator[str]:
    if study.confirm is None or study.winner is None or study.winner.best is None:
        return
    before, after = study.value(study.winner), study.confirm.mean
    luck = "seed and the tracks" if is_reshuffled(study.config) else "seed"
    if study.ranking.num_tracks and study.ranking.maximise and after < study.ranking.bar(before):
        yield (
            f"{study.metric} fell from {before:.3f} in the search to {after:.3f} with new seeds, "
            f"by more than one standard error; part of the first score was luck with the {luck}"
        )


def _few_test(study: Summary) -> Iterator[str]:
    if study.test and (number := study.test.metrics["tracks"]) < FEWEST_TEST_TRACKS:
        yield (
            f"{'a single test track shows' if number == 1 else f'{number} test tracks show'} "
            "nothing, whatever the score"
        )


def _looks(study: Summary) -> Iterator[str]:
    if study.looks > 1:
        yield (
            f"{study.looks} models of this study have been scored on the test split; to take the "
            "one that scored best there makes its score too good, so only the newest winner's "
            "score is shown, whatever the others reached"
        )


def _wide(study: Summary) -> Iterator[str]:
    if (test := study.test) is None or any(_few_test(study)):
        return
    low, high = test.metrics["ci95"]
    tracks, rarest = test.metrics["tracks"], test.confusion.sum(1).min()
    if tracks < FEW_TRACKS or rarest < FEW_OF_A_CLASS:
        yield (
            f"only {tracks} test tracks ({rarest} in the smallest class); expect the score to "
            "move with different tracks"
        )
    elif high - low > WIDE_INTERVAL:
        yield f"the test interval is {high - low:.2f} wide, from only {tracks} test tracks"


def _guess(study: Summary) -> Iterator[str]:
    if study.test and study.test.is_guessing:
        test = study.test
        yield (
            "no better than guessing, as far as these tracks can tell: the model is right for "
            f"{test.metrics['accuracy']:.0%} of them (95 % interval from "
            f"{test.lowest_accuracy:.0%}), always predicting the most common class for "
            f"{test.commonest_share:.0%}"
        )


def _below(study: Summary) -> Iterator[str]:
    best = max(study.baselines, key=lambda one: one.lead, default=None)
    if best and best.lead and best.test and best.share_better is not None:
        noise = "beyond" if best.share_better >= SURE else "within"
        yield (
            f"below a baseline: {best.title} has macro F1 {best.test['f1_macro']:.3f} on the "
            f"test tracks, the {study.tested} {best.winner:.3f} (the baseline is higher in "
            f"{best.share_better:.0%} of the resamplings of these tracks, {noise} noise)"
        )


def _matched(study: Summary) -> Iterator[str]:
    equal = [
        one.title
        for one in study.baselines
        if one.test and one.winner is not None and one.test["f1_macro"] == one.winner
    ]
    if equal:
        yield (
            f"no better than a cheap baseline on the test tracks: {' and '.join(equal)} "
            f"{'reaches' if len(equal) == 1 else 'reach'} the same macro F1"
        )


def _unrecognised(study: Summary) -> Iterator[str]:
    if study.test and not study.test.is_guessing:
        missed = [row for row in study.test.classes if row.tracks >= FEW_OF_A_CLASS]
        missed = [row for row in missed if row.recall < LOW_RECALL]
        if missed:
            shown = ", ".join(f"{row.label} ({row.recall:.0%} of {row.tracks})" for row in missed)
            yield f"classes that are hardly ever recognised in the test: {shown}"


def _seeds(study: Summary) -> Iterator[str]:
    if study.is_fused:
        yield (
            "the tested model is a fusion, whose spread between seeds is unknown; the confirmed "
            "mean is that of the winner alone"
        )
    elif study.confirm and study.confirm.seeds < 2:
        yield (
            "the winner was trained again with a single new seed, so the spread between seeds is "
            "unknown (confirm.seeds)"
        )


CHECKS = (
    Check(_leak),
    Check(_remarks),
    Check(_overlap),
    Check(_few_test, "add recordings, or give the test a larger share (data.split)"),
    Check(
        _guess,
        "check with your own ears that the labels can be told apart, add recordings, or start "
        "from a pretrained network (search_spaces/pretrained.yaml)",
    ),
    Check(
        _below,
        "try a linear head on a pretrained network (search_spaces/pretrained.yaml), more trials, "
        "or longer training",
    ),
    Check(
        _unrecognised,
        "listen to these classes, join them with others or leave them out, or add recordings",
    ),
    Check(_matched),
    Check(_looks),
    Check(_wide),
    Check(_pace),
    Check(_few_val),
    Check(_tied),
    Check(_fall),
    Check(_seeds),
)
"""All checks, the gravest first. A leak has no remedy here: it keeps a model from registration."""
