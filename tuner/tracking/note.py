"""A study in one Markdown page: which trial won, by how much, is it true, what to run next."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

from tuner.ledger import selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuner.ledger.journal import Record

MAX_LINE = 90  # characters; a longer line in a block pushes the metrics out of MLflow's page


def note(records: Sequence[Record]) -> str:
    """The note for a study's records so far; MLflow's page shows its first lines unopened."""
    facts = selection.summary(records)
    if facts["best"] is None:
        parts = ["No trial has succeeded.", *_trust(facts)]
    else:
        rows = selection.trial_rows(records)
        search = next(r for r in records if r["kind"] == "study")["config"]["search"]
        winner = _winner(facts, rows, search["metric"], search["mode"] == "max")
        params = _block(rows[facts["best"]["trial_id"]].params)
        parts = [
            winner, *_test(facts), *_beside(facts), *_trust(facts), params, *_next(facts),
        ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _winner(
    facts: dict[str, Any], rows: dict[str, selection.TrialRow], metric: str, maximise: bool
) -> str:
    """Who won, and how far before the runner-up and the median trial."""
    best, confirm = facts["best"], facts["confirm"]
    trial_id = best["trial_id"]
    ranked = [
        (row.trial_id, value)
        for row in selection.leaderboard(rows.values(), metric, maximise)
        if (value := row.value(metric)) is not None
    ]
    own = dict(ranked)[trial_id]
    others = [one for one in ranked if one[0] != trial_id]
    found = [f"**Winner: {trial_id} ({best['config']['model']['name']})**"]
    if confirm:
        rivals = [(c["trial_id"], c["mean"]) for c in confirm["top"] if c["trial_id"] != trial_id]
        mean = confirm["mean"]
        found.append(
            (
                f", mean {metric} {mean:.3f} over {confirm['seeds']} seeds"
                if confirm["seeds"] > 1
                else f", {metric} {mean:.3f} with another seed"
            )
            + (f", {_against(mean, rivals[0], 'runner-up', maximise)}" if rivals else "")
        )
        others = [] if rivals else others
    found.append(f"{'. Search:' if confirm else ', search:'} {metric} {own:.3f}")
    if others:
        found.append(f", {_against(own, others[0], 'runner-up', maximise)}")
    if len(ranked) > 1:
        middle = statistics.median(value for _, value in ranked)
        found.append(
            f", {_compared(own, middle, maximise)} the median of {len(ranked)} trials "
            f"({middle:.3f})"
        )
    return "".join(found) + "."


def _against(own: float, rival: tuple[str, float], name: str, maximise: bool) -> str:
    return f"{_compared(own, rival[1], maximise)} the {name} {rival[0]} ({rival[1]:.3f})"


def _compared(own: float, other: float, maximise: bool) -> str:
    lead = own - other if maximise else other - own
    if abs(lead) < 0.0005:  # shown with three digits
        return "level with"
    return f"{abs(lead):.3f} {'better' if lead > 0 else 'worse'} than"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _test(facts: dict[str, Any]) -> list[str]:
    test = facts["test"]
    if not test:
        return []
    low, high = test["ci95"]
    refit = bool(facts["confirm"] and facts["confirm"]["refit"])
    return [
        f"**Test: macro F1 {test['f1_macro']:.3f}**, 95 % interval {low:.3f} to {high:.3f}, "
        f"accuracy {test['accuracy']:.3f}, {_counted(test['tracks'], 'track')}, looked at once"
        + (", by a final fit on training and validation tracks." if refit else ".")
    ]


def _beside(facts: dict[str, Any]) -> list[str]:
    """What several models answer together; nothing was chosen by it."""
    names = {"top_k": "soft vote of", "fusion": "fusion of"}
    found = [
        f"{names[row['name']]} {_counted(len(row['members']), 'model')}: "
        f"test macro F1 {row['test']['f1_macro']:.3f}, accuracy {row['test']['accuracy']:.3f}"
        for row in facts["ensembles"]
        if row["name"] in names
    ]
    return [f"Beside the winner, not used to choose: {'; '.join(found)}."] if found else []


def _trust(facts: dict[str, Any]) -> list[str]:
    """Whether the scores can be believed: leakage, number of test tracks, seeds, lost files."""
    if not facts["features"]:
        return []
    leak, tracks, test = facts["leakage"], facts["features"][0]["tracks"], facts["test"]
    found = (
        ["leakage audit passed"]
        if leak["passed"]
        else [f"**{selection.leak_in_words(leak)}**: the scores cannot be trusted"]
    )
    if test:
        low, high = test["ci95"]
        few = f"wide: {_counted(test['tracks'], 'test track')} are few"
        enough = f"narrow, {_counted(test['tracks'], 'test track')}"
        is_wide = high - low > selection.WIDE_INTERVAL
        found.append(f"interval of {high - low:.2f} is {few if is_wide else enough}")
    if facts["confirm"] and facts["confirm"]["seeds"] < 2:
        found.append("repeated with one other seed only")
    lost, listed = tracks["quarantined"], _counted(tracks["listed"], "track")
    found.append(f"{lost} of {listed} not usable" if lost else f"all {listed} usable")
    return [f"Trust: {'; '.join(found)}."]


def _block(params: dict[str, Any]) -> str:
    """Sampled values, one short line each."""
    lines = [f"{name}: {_value(value)}" for name, value in params.items()]
    cut = [f"{line[: MAX_LINE - 3]}..." if len(line) > MAX_LINE else line for line in lines]
    return "\n".join(["```yaml", *cut, "```"])


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _next(facts: dict[str, Any]) -> list[str]:
    done = facts["registered"]
    if not done["reason"]:
        return []
    parts = [f"Registration: {done['reason']}"]
    if done["version"]:
        reference = f"@{done['alias']}" if done["alias"] else f"/{done['version']}"
        parts.append(f"```\npython -m tuner.predict models:/{done['name']}{reference} FILE\n```")
    return parts
