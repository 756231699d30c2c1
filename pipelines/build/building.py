"""Feature sets that are not there yet: what can be taken over, what must be decoded, the rest."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import filelock

from pipelines.build.progress import Progress
from pipelines.errors import BuildError, SplitError
from pipelines.settings import ClipSpec, FeatureSpec, SplitSpec, rendering
from pipelines.sources.checksums import COLUMNS as CHECKSUMS
from pipelines.sources.files import printable_root
from pipelines.store.feature_set import find_feature_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pipelines.build.decode import Job, Output, Piece, Task
    from pipelines.build.reuse import Done
    from pipelines.sources.tracks import Catalog, Track
    from pipelines.splits.tolerance import Tolerance
    from pipelines.store.feature_set import FeatureSet
    from pipelines.verdicts import Verdict

    Specs = tuple[ClipSpec, FeatureSpec]
    Report = Callable[[Progress], None]
    # a piece and its verdicts for each output, in any order
    DecodePass = Callable[[Job, Sequence[Piece]], Iterator[tuple[Piece, dict[int, list[Verdict]]]]]


@dataclass(frozen=True)
class Order:
    """What is to be built.

    Attributes:
        catalog: the tracks.
        keys: track_id -> `track_keys`.
        digests: path -> digest of the bytes that the keys were made of.
        split: how tracks are put on sides.
        out: the folder of the feature sets.
        verify: trust no size and no time of change.
        tolerance: how much may be lost.
        decode: runs pieces of work; called when there is something to decode.
    """

    catalog: Catalog
    keys: Mapping[str, str]
    digests: Mapping[str, str]
    split: SplitSpec
    out: Path
    verify: bool
    tolerance: Tolerance
    decode: DecodePass


@dataclass(frozen=True)
class Built:
    """A feature set, and how much of it was there.

    Attributes:
        feature_set: the finished set.
        resumed_tracks: tracks whose rows earlier builds had made.
        reused: somebody else finished the whole set while this build waited.
    """

    feature_set: FeatureSet
    resumed_tracks: int
    reused: bool = False


def root_key(catalog: Catalog) -> str:
    """A file name for what belongs to one data set, the same when a key in its URI changes."""
    root = printable_root(catalog.root).encode()
    return hashlib.blake2b(root, digest_size=8).hexdigest()


def track_keys(catalog: Catalog, digests: Mapping[str, str]) -> dict[str, str]:
    """For each track that can be read, a hash of all that its verdict and its rows come from.

    Args:
        catalog: the tracks.
        digests: path -> digest of the file's bytes.

    Returns:
        track_id -> 32 hex digits.
    """
    return {
        track.track_id: _key(track, content)
        for track in catalog.tracks
        if (content := digests.get(track.path))
    }


def _key(track: Track, content: str) -> str:
    name = track.path.rpartition("/")[2]
    suffix = name.rpartition(".")[2].lower() if "." in name else ""  # W_EXT depends on it
    checksums = [track.columns.get(column, "") for column in CHECKSUMS]
    parts = json.dumps([content, track.start_s, track.end_s, suffix, checksums])
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


def build_missing(order: Order, places: Mapping[Path, Specs], report: Report) -> dict[Path, Built]:
    """Builds feature sets of one catalog.

    Args:
        order: what they share.
        places: where each goes, and what it is made with.
        report: called now and then.

    Returns:
        For each place what is there now.

    Raises:
        SplitError: The groups cannot be put on three sides.
        BuildError: Too many files were rejected, or a class lost all of its files.
        StorageFullError: No room left.
    """
    from pipelines.build.writer import storage_errors
    from pipelines.splits.decide import check_splits

    check_splits(order.catalog, order.split)
    with storage_errors(order.out), ExitStack() as locks:
        stagings = {path: _staging(order, *specs) for path, specs in places.items()}
        for staging in sorted(
            set(stagings.values())
        ):  # in one order, so that none waits in a ring
            staging.parent.mkdir(parents=True, exist_ok=True)
            locks.enter_context(filelock.FileLock(staging.with_suffix(".lock")))
            staging.mkdir(exist_ok=True)
        for path in sorted(places):  # the same set may be built from a copy of the data
            lock = order.out / ".staging" / f"{path.name}.lock"
            locks.enter_context(filelock.FileLock(lock))
        # whoever held a lock may have built the same
        found = {path: find_feature_set(path, digests=order.verify) for path in places}
        built = {path: Built(there, 0, reused=True) for path, there in found.items() if there}
        if left := {path: specs for path, specs in places.items() if path not in built}:
            built |= _build_locked(order, left, stagings, report)
        for staging in stagings.values():
            shutil.rmtree(staging, ignore_errors=True)
    return built


def _staging(order: Order, clip: ClipSpec, feature: FeatureSpec) -> Path:
    name = f"{root_key(order.catalog)}-{rendering(clip, feature)}"
    return order.out / ".staging" / name


def _build_locked(
    order: Order, places: Mapping[Path, Specs], stagings: Mapping[Path, Path], report: Report
) -> dict[Path, Built]:
    from pipelines.build.assemble import assemble
    from pipelines.build.decode import Job, Output
    from pipelines.splits.decide import decide

    outputs = tuple(Output(*specs, stagings[path]) for path, specs in places.items())
    ready = [_ready(order, output) for output in outputs]
    resumed = [len(done) for done in ready]
    _decode_rest(order, Job(order.catalog.root, outputs), ready, report)
    built, copies = {}, None
    for path, output, done, count in zip(places, outputs, ready, resumed, strict=True):
        verdicts = {track: one.verdict for track, one in done.items()}
        try:
            decision = decide(order.catalog, verdicts, order.split, order.tolerance, copies)
        except (BuildError, SplitError) as error:
            raise type(error)(f"{error}\n{_list_rejects(order, verdicts, path)}") from error
        copies = decision.copies  # the same for all sets, whose sides must not differ
        rows = {track: one.rows for track, one in done.items() if one.rows is not None}
        feature_set = assemble(order.catalog, output, order.split, decision, rows, path)
        built[path] = Built(feature_set, count)
    return built


def _list_rejects(order: Order, verdicts: Mapping[str, Verdict], path: Path) -> str:
    """Writes down which files are bad when there will be no feature set that says so."""
    from pipelines.build.writer import reject_rows, write_rejects
    from pipelines.splits.decide import with_listing

    listed = with_listing(order.catalog, verdicts)
    rows = reject_rows((track, listed[track.track_id]) for track in order.catalog.tracks)
    file = path.with_name(f"{path.name}.rejects.csv")
    write_rejects(file, rows)
    return f"The {len(rows)} files that cannot be read or used: {file}"


def _ready(order: Order, output: Output) -> dict[str, Done]:
    """The tracks that need not be decoded for an output, by track_id."""
    from pipelines.build.reuse import staged, stored

    name = rendering(output.clip, output.feature)
    pool = stored(order.out, name) | staged(output.staging)
    return {
        track: replace(done, verdict=replace(done.verdict, track_id=track))
        for track, key in order.keys.items()
        if (done := pool.get(key)) and track not in order.catalog.rejected
    }


def _decode_rest(order: Order, job: Job, ready: Sequence[dict[str, Done]], report: Report) -> None:
    """Decodes what is missing and adds it to `ready`."""
    from pipelines.build.decode import pieces, verdicts_file
    from pipelines.build.reuse import of_piece

    tasks = _tasks(order, ready)
    tally = _Tally(order.catalog, ready, len(tasks))
    report(tally.progress())
    if not tasks:
        return
    for piece, verdicts in order.decode(job, pieces(tasks)):
        for number, of_output in verdicts.items():
            table = verdicts_file(job.outputs[number], piece.name)
            done = of_piece(table, of_output)
            ready[number].update({one.verdict.track_id: one for one in done})
            tally.add(number, done)
        report(tally.progress())


def _tasks(order: Order, ready: Sequence[Mapping[str, Done]]) -> list[Task]:
    from pipelines.build.decode import Task

    tasks = []
    for track in order.catalog.tracks:
        if track.track_id in order.catalog.rejected:
            continue
        lacking = tuple(n for n, done in enumerate(ready) if track.track_id not in done)
        if lacking:
            key = order.keys.get(track.track_id, "")
            tasks.append(Task(track, key, lacking, order.digests.get(track.path, "")))
    return tasks


class _Tally:
    """Counts of a build, kept piece by piece."""

    def __init__(
        self, catalog: Catalog, ready: Sequence[Mapping[str, Done]], num_tasks: int
    ) -> None:
        self._listed = len(catalog.tracks)
        self._judged = len(catalog.rejected)
        self._resumed = self._listed - self._judged - num_tasks
        self._files = [0] * len(ready)
        self._rejected = [0] * len(ready)
        self._clips = 0
        for number, done in enumerate(ready):
            self.add(number, done.values())

    def add(self, output: int, done: Iterable[Done]) -> None:
        """Counts tracks that an output has got."""
        for one in done:
            self._files[output] += 1
            self._rejected[output] += not one.verdict.used
            self._clips += one.verdict.num_clips

    def progress(self) -> Progress:
        """The counts as they are now."""
        return Progress(
            files=min(self._files) + self._judged,
            listed=self._listed,
            rejected=max(self._rejected) + self._judged,
            clips=self._clips,
            resumed=self._resumed,
        )
