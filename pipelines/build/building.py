"""Build the feature sets of a catalog, or find those that exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.build.assemble import assemble
from pipelines.build.decode import (
    DecodeBatch,
    DecodeJob,
    Output,
    Verdicts,
    batch_name,
    decode_batches,
    decode_tasks,
)
from pipelines.build.naming import DIGESTS, content_of
from pipelines.build.progress import BuildProgress
from pipelines.build.ray_pass import decode_on_cluster
from pipelines.build.reuse import (
    DecodedTrack,
    batch_tracks,
    compared_before,
    staged_tracks,
    stored_tracks,
    track_keys,
)
from pipelines.build.writer import write_rejects
from pipelines.errors import BuildError, SplitError, StoreError, full_disk_named
from pipelines.features import FeatureSpec, feature_key, fingerprint
from pipelines.features.rules import check_front_end
from pipelines.settings import SPLIT_RULES, ClipSpec, SplitSpec, Tolerance, check
from pipelines.sources.content import digests, root_key
from pipelines.sources.tracks import Catalog
from pipelines.splits.decide import check_splits, decide, with_listing
from pipelines.storage import Folder
from pipelines.store import FeatureSet, find_feature_set

if TYPE_CHECKING:
    from pipelines.duplicates import Compared

# Yields each batch with the verdicts on its tracks, in any order.
DecodePass = Callable[[DecodeJob, Sequence[DecodeBatch]], Iterator[tuple[DecodeBatch, Verdicts]]]
Specs = tuple[ClipSpec, FeatureSpec]
STAGING = ".staging"
# Changed files that are decoded in this process: workers would only begin after 1.5 s.
_FEW = 16


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build that do not change the resulting feature sets.

    Attributes:
        tolerance: Amount of data that may be lost.
        verify: True to read all source files and all finished rows again and to rebuild
            whatever is damaged.
        decode: Decode pass; Ray Data on the connected cluster by default.
        progress: Callback for progress.
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
    verify: bool = False
    decode: DecodePass = decode_on_cluster
    progress: Callable[[BuildProgress], None] | None = None


@dataclass(frozen=True)
class BuildResult:
    """A finished feature set and the work it took.

    Attributes:
        feature_set: Finished set.
        resumed_tracks: Number of tracks whose rows earlier builds had made.
        reused: True if the set already existed and nothing was built.
    """

    feature_set: FeatureSet
    resumed_tracks: int = 0
    reused: bool = False


def build_sets(
    catalog: Catalog,
    out: Path,
    specs: Sequence[Specs],
    split: SplitSpec,
    options: BuildOptions = BuildOptions(),
) -> list[BuildResult]:
    """Build several feature sets of one catalog, or return those that exist.

    Each track is decoded once for all sets that share a sample rate. It is not decoded at all if
    an interrupted build or a finished feature set below ``out`` has its rows. If two processes
    build the same set at the same time, one builds and the other waits for it.

    Args:
        catalog: Tracks.
        out: Folder of feature sets; each is written to ``<out>/<fingerprint>``.
        specs: Clip and feature settings of each set.
        split: Split settings; all sets have the same split.
        options: Options that do not change the resulting feature sets.

    Returns:
        The sets in the order of ``specs``.

    Raises:
        SpecError: Settings cannot work together.
        SplitError: A class has too few groups for a train, validation and test split.
        BuildError: Too many files were rejected, or a class lost all of its files.
        StoreError: ``out`` cannot be written to.
        StorageFullError: No room left.
    """
    for clip, feature in specs:
        check_front_end(clip, feature)
    split = catalog.as_given(split)
    check(SPLIT_RULES, split)
    folder = Folder.at(out).resolved()
    try:
        with full_disk_named(folder.path):
            folder.create()
            known = digests(catalog, folder / DIGESTS, trust_cache=not options.verify)
    except OSError as error:
        raise StoreError(
            f"feature sets cannot be written to {folder}: {error.strerror}"
        ) from error
    content = content_of(catalog, known)
    targets = [folder / fingerprint(content, *spec, split) for spec in specs]
    built, build = _finished(targets, options), _Build(catalog, folder, split, options, known)
    missing = {t: spec for t, spec in zip(targets, specs, strict=True) if t not in built}
    for spec in set(specs) - set(missing.values()):
        build.remove_staging(spec)
    built |= build.run(missing) if missing else {}
    return [built[target] for target in targets]


def _finished(targets: Iterable[Folder], options: BuildOptions) -> dict[Folder, BuildResult]:
    found = ((target, find_feature_set(target, digests=options.verify)) for target in targets)
    return {target: BuildResult(there, reused=True) for target, there in found if there}


@dataclass(frozen=True)
class _Build:
    """One build of the missing sets.

    Attributes:
        catalog: Tracks.
        out: Folder of feature sets.
        split: Split settings.
        options: Options of the build.
        digests: path -> digest of the file's bytes.
    """

    catalog: Catalog
    out: Folder
    split: SplitSpec
    options: BuildOptions
    digests: Mapping[str, str]

    def run(self, missing: Mapping[Folder, Specs]) -> dict[Folder, BuildResult]:
        """Build each missing set, or wait for another process that builds it."""
        check_splits(self.catalog, self.split)
        outputs = {target: Output(*spec, self._staging(spec)) for target, spec in missing.items()}
        with full_disk_named(self.out.path), ExitStack() as locks:
            # Take the locks in sorted order, so that builds cannot deadlock. The set has a lock
            # of its own, because another copy of the data may produce the same set.
            names = sorted({output.staging.name for output in outputs.values()})
            for name in (*names, *sorted(target.name for target in outputs)):
                locks.enter_context((self.out / STAGING).lock(f"{name}.lock"))
            # The process that held the locks may have built the same sets.
            built = _finished(outputs, self.options)
            if left := {t: output for t, output in outputs.items() if t not in built}:
                built |= self._build(left)
            for output in outputs.values():
                output.staging.remove()
        return built

    def remove_staging(self, spec: Specs) -> None:
        """Remove what a process left that was killed when its set was whole; not while in use."""
        if (staging := self._staging(spec)).exists():
            with suppress(OSError), staging.parent.lock(f"{staging.name}.lock", 0.0):
                staging.remove()

    def _staging(self, spec: Specs) -> Folder:
        return self.out / STAGING / f"{root_key(self.catalog)}-{feature_key(*spec)}"

    def _build(self, outputs: Mapping[Folder, Output]) -> dict[Folder, BuildResult]:
        job = DecodeJob(self.catalog.root, tuple(outputs.values()))
        keys = track_keys(self.catalog, self.digests)
        decoded, before = self._reusable(job, keys)
        num_resumed = [len(tracks) for tracks in decoded]
        self._decode_rest(job, keys, decoded)
        built, copies = {}, None
        for (target, output), tracks, count in zip(
            outputs.items(), decoded, num_resumed, strict=True
        ):
            verdicts = {name: track.verdict for name, track in tracks.items()}
            try:
                decision = decide(
                    self.catalog, verdicts, self.split, self.options.tolerance, copies, before
                )
            except (BuildError, SplitError) as error:
                # List the bad files next to where the feature set would have been.
                name, judged = f"{target.name}.rejects.csv", with_listing(self.catalog, verdicts)
                listed = ((track, judged[track.track_id]) for track in self.catalog.tracks)
                count = write_rejects(self.out, listed, name)
                raise type(error)(
                    f"{error}\nThe {count} files that cannot be read or used: "
                    f"{self.out.local(name)}"
                ) from error
            copies = decision.copies  # the same for all sets, so that their splits are equal
            found = assemble(self.catalog, output, self.split, decision, tracks, target)
            built[target] = BuildResult(found, count)
        return built

    def _reusable(
        self, job: DecodeJob, keys: Mapping[str, str]
    ) -> tuple[list[dict[str, DecodedTrack]], Compared]:
        """Find the tracks that need not be decoded again: track_id -> track, for each output.

        Also returns what one of the sets that have them knows of near copies.
        """
        reusable, compared = [], []
        for output in job.outputs:
            output.staging.create()
            key = feature_key(output.clip, output.feature)
            stored, known = stored_tracks(self.out, key, keys.values())
            compared += known
            found = stored | staged_tracks(output.staging)
            reusable.append(
                {
                    name: replace(track, verdict=replace(track.verdict, track_id=name))
                    for name, key in keys.items()
                    if (track := found.get(key)) and name not in self.catalog.rejected
                }
            )
        return reusable, compared_before(keys, compared)

    def _decode_rest(
        self, job: DecodeJob, keys: Mapping[str, str], decoded: Sequence[dict[str, DecodedTrack]]
    ) -> None:
        """Decode what is missing and add it to ``decoded``."""
        tasks = decode_tasks(self.catalog, keys, self.digests, decoded)
        report = self.options.progress or (lambda progress: None)
        reused = [[track.verdict for track in tracks.values()] for tracks in decoded]
        done = BuildProgress.begun(self.catalog, len(tasks), reused)
        report(done)
        job = replace(job, is_little=len(tasks) <= min(_FEW, done.resumed))
        for batch, found in self.options.decode(job, decode_batches(tasks)) if tasks else ():
            for number, verdicts in found.items():
                staging = job.outputs[number].staging
                tracks = batch_tracks(staging, batch_name(batch), verdicts)
                decoded[number].update({track.verdict.track_id: track for track in tracks})
            done = done.after(len(batch), found)
            report(done)
