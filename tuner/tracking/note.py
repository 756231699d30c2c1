"""A study in one Markdown page: which trial won, by how much, is it true, what to run next."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tuner import selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuner.ledger import Record


def note(records: Sequence[Record]) -> str:
    """The page for a study's records so far."""
    facts = selection.summary(records)
    parts = [f"# Study {facts['study']}", *_winner(records, facts), *_trust(facts), *_next(facts)]
    return "\n\n".join(parts) + "\n"


def _winner(records: Sequence[Record], facts: dict[str, Any]) -> list[str]:
    search = next(r for r in records if r["kind"] == "study")["config"]["search"]
    metric, maximise = search["metric"], search["mode"] == "max"
    best = facts["best"]
    if best is None:
        return ["No trial has succeeded."]
    rows = selection.trial_rows(records)
    ranked = selection.leaderboard(rows.values(), metric, maximise)
    own = rows[best["trial_id"]].value(metric)
    others = [row.value(metric) for row in ranked if row.trial_id != best["trial_id"]]
    headline = f"**Winner: {best['trial_id']}** ({best['config']['model']['name']})"
    if own is not None:
        headline += f", best {metric} {own:.3f}"
    if others and others[0] is not None:
        headline += f"; the best other trial reached {others[0]:.3f}"
    params = json.dumps(rows[best["trial_id"]].params, ensure_ascii=False)
    parts = [headline, f"```json\n{params}\n```"]
    if confirm := facts["confirm"]:
        parts.append(f"Over {confirm['seeds']} random seeds: mean {metric} {confirm['mean']:.3f}.")
    if test := facts["test"]:
        low, high = test["ci95"]
        parts.append(
            f"**Test: macro F1 {test['f1_macro']:.3f}** (95 % interval {low:.3f} to {high:.3f}), "
            f"accuracy {test['accuracy']:.3f}, {test['tracks']} tracks, looked at once."
        )
    return parts


def _trust(facts: dict[str, Any]) -> list[str]:
    if not facts["features"]:
        return []
    leak, tracks = facts["leakage"], facts["features"][0]["tracks"]
    verdict = "passed" if leak["passed"] else "**FAILED**: the scores are too good to be true"
    trials = facts["trials"]
    return [
        f"- leakage audit {verdict} ({leak['groups_shared']} shared groups, "
        f"{leak['near_duplicates_shared']} shared near-duplicates)\n"
        f"- tracks: {tracks['ok']} ok, {tracks['flagged']} flagged, "
        f"{tracks['quarantined']} not used, of {tracks['listed']}\n"
        f"- trials: {trials['completed']} completed, {trials['stopped']} stopped early, "
        f"{trials['failed']} failed"
    ]


def _next(facts: dict[str, Any]) -> list[str]:
    done = facts["registered"]
    if not done["reason"]:
        return []
    parts = [f"Registration: {done['reason']}"]
    if done["version"]:
        reference = f"@{done['alias']}" if done["alias"] else f"/{done['version']}"
        parts.append(f"```\npython -m tuner.predict models:/{done['name']}{reference} FILE\n```")
    return parts
