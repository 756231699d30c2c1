"""Terminal output of a build: progress lines and the final summary."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from pipelines.plain_text import escaped, printable
from pipelines.settings import SPLITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pipelines.build.progress import BuildProgress
    from pipelines.store import FeatureSet, Manifest

_EXAMPLES = 3


# Why audio is not listed, in layouts that are no table.
_UNLISTED = {
    **dict.fromkeys(("folders", "given", "gtzan", "speech_commands"), "are in no class folder"),
    "fsdd": "do not have its names",
}


def progress_lines(
    stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Callable[[BuildProgress], None]:
    """Return a progress callback: it redraws one line on a terminal, else prints one every 5 s.

    Args:
        stream: Output stream; standard error by default.
        clock: Monotonic clock in seconds.
    """
    out = stream or sys.stderr
    live = out.isatty()
    pause = 0.2 if live else 5.0
    started = clock()
    last = -pause
    start: int | None = None  # files of earlier builds
    first: tuple[float, int] | None = None  # time of the first new files, and files until then

    def show(progress: BuildProgress) -> None:
        nonlocal last, first, start
        now = clock() - started
        left = progress.listed - progress.files
        start = progress.files if start is None else start
        if first is None and progress.files > start:
            first = now, progress.files  # the rate leaves out the start of processes
        if left and now - last < pause:
            return
        last = now
        rate = (progress.files - first[1]) / (now - first[0]) if first and now > first[0] else 0.0
        parts = [f"{progress.files}/{progress.listed} files", f"{progress.clips} clips"]
        parts.append(f"{progress.rejected} rejected")
        if progress.resumed:
            parts.append(f"{progress.resumed} reused")
        if rate > 0:
            parts.append(f"{rate:.0f} files/s")
        if rate > 0 and left:
            parts.append(f"{duration(left / rate)} left")
        text = ", ".join(parts)
        out.write(f"\r\x1b[K{text}" if live else f"{text}\n")
        if live and not left:
            out.write("\n")
        out.flush()

    return show


def as_data(feature_set: FeatureSet, seconds: float, resumed_tracks: int) -> dict[str, Any]:
    """Return the result of a build as JSON data for other programs."""
    manifest = feature_set.manifest
    return {
        "path": str(feature_set.folder),
        "fingerprint": manifest.fingerprint,
        "labels": list(manifest.labels),
        "tracks": asdict(manifest.tracks),
        "clips": dict(manifest.clips),
        "seconds": round(seconds, 3),
        "resumed_tracks": resumed_tracks,
    }


def summary(feature_set: FeatureSet, notes: Iterable[str] = (), others: str = "") -> str:
    """Describe the result of a build: classes by split and verdict, reasons, leakage audit.

    Args:
        feature_set: Finished set.
        notes: Further lines.
        others: What the files are that are not audio.
    """
    manifest = feature_set.manifest
    tracks = manifest.tracks
    lines = [*_table(manifest), ""]
    lines.append(
        f"{tracks.listed} files: {tracks.ok} ok, {tracks.flagged} used with a remark, "
        f"{tracks.quarantined} skipped"
    )
    lines += _reasons(manifest, "W_") + _reasons(manifest, "E_")
    if manifest.tracks.quarantined:
        lines.append(f"  all of them: {feature_set.folder / 'rejects.csv'}")
    if manifest.ignored:
        lines.append(f"{manifest.ignored} other files ignored{others and f': {others}'}")
    if manifest.unlisted:
        where = _UNLISTED.get(manifest.layout, "have no row")
        lines.append(f"{manifest.unlisted} audio files {where} and were skipped (W_UNLISTED)")
    lines += notes
    lines.append(f"groups: {manifest.group_source}")
    lines += _audit(manifest)
    lines.append(f"feature set: {feature_set.folder}")
    return "\n".join(map(printable, lines))


def _table(manifest: Manifest) -> Iterator[str]:
    """Yield a table of classes: tracks by split, files by verdict."""
    names = {label: escaped(label) or "(no label)" for label in manifest.verdicts}
    width = max(len("class"), len("clips"), *(len(name) for name in names.values()))
    heads = [*SPLITS, "ok", "flagged", "skipped"]
    yield f"{'class':<{width}}  " + " ".join(f"{head:>8}" for head in heads)
    for label, counts in manifest.verdicts.items():
        tracks = [manifest.classes.get(label, {}).get(split, 0) for split in SPLITS]
        cells = [*tracks, counts.ok, counts.flagged, counts.quarantined]
        yield f"{names[label]:<{width}}  " + " ".join(f"{cell:>8}" for cell in cells)
    clips = " ".join(f"{manifest.clips[split]:>8}" for split in SPLITS)
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
        lines = ["LEAKY: clips of one recording are in several splits; for comparison only"]
    elif leakage.passed:
        lines = ["no group and no recording appears in more than one split"]
        if leakage.dropped:
            lines[0] += f"; {leakage.dropped} tracks dropped for that (E_LEAK)"
    else:
        lines = [
            f"LEAK: {leakage.groups_shared} groups, {leakage.exact_duplicates_shared} exact and "
            f"{leakage.near_duplicates_shared} near copies appear in more than one split; "
            "scores will be too good"
        ]
    if leakage.label_conflicts:
        lines.append(f"{leakage.label_conflicts} pairs of copies have different labels")
    lines += [f"  {kind}: {detail}" for kind, detail in leakage.examples[:_EXAMPLES]]
    return lines


def duration(seconds: float) -> str:
    """Return a time in the unit that a reader would use, rounded."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
