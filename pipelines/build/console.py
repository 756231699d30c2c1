"""What a build tells a person: progress lines and the summary at the end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from pipelines.settings import SPLITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pipelines.build.progress import Progress
    from pipelines.store.feature_set import FeatureSet
    from pipelines.store.manifest import Manifest

_EXAMPLES = 3


def progress_lines(
    stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Callable[[Progress], None]:
    """A progress function for a build: one line redrawn on a terminal, else a line now and then.

    Args:
        stream: where to write; standard error by default.
        clock: seconds from any moment on.
    """
    out = stream or sys.stderr
    live = out.isatty()
    pause = 0.2 if live else 5.0
    begun = clock()
    last = -pause
    start: int | None = None  # files that were done before
    first: tuple[float, int] | None = None  # when the first fresh ones came, and how many

    def show(progress: Progress) -> None:
        nonlocal last, first, start
        now = clock() - begun
        left = progress.listed - progress.files
        start = progress.files if start is None else start
        if first is None and progress.files > start:
            first = now, progress.files  # the start of processes says nothing of the rate
        if left and now - last < pause:
            return
        last = now
        rate = (progress.files - first[1]) / (now - first[0]) if first and now > first[0] else 0.0
        parts = [f"{progress.files}/{progress.listed} files", f"{progress.clips} clips"]
        parts.append(f"{progress.rejected} rejected")
        if progress.resumed:
            parts.append(f"{progress.resumed} taken over")
        if rate > 0:
            parts.append(f"{rate:.0f} files/s")
        if rate > 0 and left:
            parts.append(f"{_duration(left / rate)} left")
        text = ", ".join(parts)
        out.write(f"\r\x1b[K{text}" if live else f"{text}\n")
        if live and not left:
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


def summary(feature_set: FeatureSet, notes: Iterable[str] = ()) -> str:
    """The result of a build for a person: classes by side and verdict, reasons, the audit.

    Args:
        feature_set: the finished set.
        notes: what reading the data set had to say.
    """
    manifest = feature_set.manifest
    tracks = manifest.tracks
    lines = [*_table(manifest), ""]
    lines.append(
        f"{tracks.listed} files: {tracks.ok} ok, {tracks.flagged} used with a remark, "
        f"{tracks.quarantined} not used"
    )
    lines += _reasons(manifest, "W_") + _reasons(manifest, "E_")
    if manifest.tracks.quarantined:
        lines.append(f"  all of them: {feature_set.path / 'rejects.csv'}")
    if manifest.ignored:
        lines.append(f"{manifest.ignored} other files ignored: not audio by their names")
    if manifest.unlisted:
        where = "lie in no class folder" if manifest.layout == "folders" else "have no row"
        lines.append(f"{manifest.unlisted} audio files {where} and are not used (W_UNLISTED)")
    lines += notes
    lines.append(f"groups: {manifest.group_source}")
    lines += _audit(manifest)
    lines.append(f"feature set: {feature_set.path}")
    return "\n".join(lines)


def _table(manifest: Manifest) -> Iterator[str]:
    """Tracks of each class by side, and its files by verdict."""
    names = {label: label or "(no label)" for label in manifest.verdicts}
    width = max(len("class"), len("clips"), *(len(name) for name in names.values()))
    heads = [*SPLITS, "ok", "flagged", "not used"]
    yield f"{'class':<{width}}  " + " ".join(f"{head:>8}" for head in heads)
    for label, counts in manifest.verdicts.items():
        sides = [manifest.classes.get(label, {}).get(side, 0) for side in SPLITS]
        cells = [*sides, counts.ok, counts.flagged, counts.quarantined]
        yield f"{names[label]:<{width}}  " + " ".join(f"{cell:>8}" for cell in cells)
    clips = " ".join(f"{manifest.clips[side]:>8}" for side in SPLITS)
    yield f"{'clips':<{width}}  {clips}"


def _reasons(manifest: Manifest, prefix: str) -> list[str]:
    found = [item for item in manifest.reasons.items() if item[0].startswith(prefix)]
    lines = []
    for code, reason in sorted(found, key=lambda item: (-item[1].count, item[0])):
        more = " ..." if reason.count > _EXAMPLES else ""
        shown = ", ".join(reason.examples[:_EXAMPLES])
        lines.append(f"  {code:<17}{reason.count:>7}  {shown}{more}")
    return lines


def _audit(manifest: Manifest) -> list[str]:
    leakage = manifest.leakage
    if leakage.clip_split:
        lines = ["LEAKY: clips of one recording are on several sides; for comparison only"]
    elif leakage.passed:
        lines = ["no group and no recording is on two sides"]
        if leakage.dropped:
            lines[0] += f"; {leakage.dropped} left out for that, with E_LEAK"
    else:
        lines = [
            f"LEAK: {leakage.groups_shared} groups, {leakage.exact_duplicates_shared} exact and "
            f"{leakage.near_duplicates_shared} near copies are on two sides of the split; scores "
            "will be too good"
        ]
    if leakage.label_conflicts:
        lines.append(f"{leakage.label_conflicts} pairs of copies carry different labels")
    lines += [f"  {kind}: {detail}" for kind, detail in leakage.examples[:_EXAMPLES]]
    return lines


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
