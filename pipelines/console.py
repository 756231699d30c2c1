"""What a build tells a person: progress lines and the summary at the end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, TextIO

from pipelines.spec import SPLITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.store import FeatureSet

_EXAMPLES = 3


def progress_lines(stream: TextIO | None = None) -> Callable[[int, int, int], None]:
    """A progress function for `build`: one line redrawn on a terminal, else a line now and then.

    Args:
        stream: where to write; standard error by default.
    """
    out = stream or sys.stderr
    live = out.isatty()
    pause = 0.2 if live else 5.0
    begun = time.monotonic()
    last, first_done = -pause, -1

    def show(done: int, total: int, rejected: int) -> None:
        nonlocal last, first_done
        now = time.monotonic() - begun
        if first_done < 0:
            first_done = done
        if done < total and now - last < pause:
            return
        last = now
        fresh = done - first_done
        rate = fresh / now if now > 0 else 0.0
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        text = f"{done}/{total} files, {rejected} rejected, {rate:.0f} files/s{left}"
        out.write(f"\r\x1b[K{text}" if live else f"{text}\n")
        if live and done >= total:
            out.write("\n")
        out.flush()

    return show


def as_data(feature_set: FeatureSet, seconds: float, resumed_tracks: int) -> dict[str, Any]:
    """The result of a build for other programs."""
    manifest = feature_set.manifest
    tracks = manifest.tracks
    return {
        "path": str(feature_set.path),
        "fingerprint": manifest.fingerprint,
        "labels": list(manifest.labels),
        "tracks": {
            "listed": tracks.listed,
            "ok": tracks.ok,
            "flagged": tracks.flagged,
            "quarantined": tracks.quarantined,
        },
        "clips": dict(manifest.clips),
        "seconds": round(seconds, 3),
        "resumed_tracks": resumed_tracks,
    }


def summary(feature_set: FeatureSet) -> str:
    """The result of a build for a person: classes by side, rejects, remarks, the audit."""
    manifest = feature_set.manifest
    rows = feature_set.tracks().to_pylist()
    rejected = Counter(row["label"] for row in rows if row["verdict"] == "quarantined")
    width = max(len("class"), len("clips"), *(len(label) for label in manifest.labels))
    lines = [f"{'class':<{width}}  {'train':>7} {'val':>7} {'test':>7} {'rejected':>9}"]
    for label in manifest.labels:
        sides = " ".join(f"{manifest.classes[label][side]:>7}" for side in SPLITS)
        lines.append(f"{label:<{width}}  {sides} {rejected[label]:>9}")
    sides = " ".join(f"{manifest.clips[side]:>7}" for side in SPLITS)
    lines += [f"{'clips':<{width}}  {sides}", ""]
    tracks = manifest.tracks
    lines.append(
        f"{tracks.listed} files: {tracks.ok} ok, {tracks.flagged} used with a remark, "
        f"{tracks.quarantined} not used"
    )
    lines += _reasons(rows, "flagged") + _reasons(rows, "quarantined")
    leakage = manifest.leakage
    lines.append(
        "no group and no recording is on two sides"
        if leakage.passed
        else f"LEAK: {leakage.groups_shared} groups and {leakage.near_duplicates_shared} pairs of "
        "copies are on two sides of the split; scores will be too good"
    )
    lines.append(f"feature set: {feature_set.path}")
    return "\n".join(lines)


def _reasons(rows: list[dict[str, Any]], verdict: str) -> list[str]:
    count: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for row in rows:
        if row["verdict"] == verdict:
            for code in row["reason"].split():
                count[code] += 1
                examples.setdefault(code, []).append(row["path"])
    return [
        f"  {code:<16}{number:>7}  {', '.join(examples[code][:_EXAMPLES])}"
        + (" ..." if number > _EXAMPLES else "")
        for code, number in count.most_common()
    ]
