"""Build the feature sets of a catalog, or find those that exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipelines.build.assemble import assemble
from pipelines.build.decode import batch_name, decode_batches
from pipelines.build.first_pass import FirstPass
from pipelines.build.locks import Locks
from pipelines.build.naming import DIGESTS, content_of
from pipelines.build.options import BuildOptions, BuildResult
from pipelines.build.progress import BuildProgress
from pipelines.build.reuse import (
    DecodedTrack,
    batch_tracks,
    compared_before,
    staged_tracks,
    stored_tracks,
    track_keys,
)
from pipelines.build.tasks import DecodeJob, DecodeTask, Output, decode_tasks, first_tasks
from pipelines.build.writer import write_rejects
from pipelines.duplicates import Compared, WordStore, near_pairs
from pipelines.errors import BuildError, SplitError, StoreError, full_disk_named
from pipelines.features import FeatureSpec, feature_key, fingerprint
from pipelines.features.rules import check_front_end
from pipelines.settings import SPLIT_RULES, ClipSpec, SplitSpec, check
from pipelines.sources.content import digests, is_hashed, root_key
from pipelines.sources.tracks import Catalog
from pipelines.splits.decide import check_splits, decide, with_listing
from pipelines.storage import Folder
from pipelines.store import find_feature_set

Specs = tuple[ClipSpec, FeatureSpec]
STAGING = ".staging"
# Changed files that are decoded in this process: workers would only begin after 1.5 s.
_FEW = 16
_CANNOT = "feature sets cannot be written to {}: {}"


def build_sets(
    catalog: Catalog,
    out: str | Path | Folder,
    specs: Sequence[Specs],
    split: SplitSpec,
    options: BuildOptions = BuildOptions(),  # noqa: B008  # frozen
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
        StorageTakenError: This process was silent for so long that another took its place.
    """
    for clip, feature in specs:
        check_front_end(clip, feature)
    split = catalog.as_given(split)
    check(SPLIT_RULES, split)
    folder = Folder.at(out).resolved()
    try:
        with full_disk_named(folder.path):
            folder.check()
            folder.create()
    except OSError as error:
        raise StoreError(_CANNOT.format(folder, error.strerror)) from error
    return _Build(catalog, folder, split, options).sets(specs)


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
    """

    catalog: Catalog
    out: Folder
    split: SplitSpec
    options: BuildOptions

    def sets(self, specs: Sequence[Specs]) -> list[BuildResult]:
        """Build the sets that do not exist, or wait for another process that builds them."""
        with full_disk_named(self.out.path), Locks() as locks:
            first = self._first_pass(specs, locks)
            known = self._digests(first)
            content = content_of(self.catalog, known)
            targets = [self.out / fingerprint(content, *spec, self.split) for spec in specs]
            built = _finished(targets, self.options)
            missing = {t: spec for t, spec in zip(targets, specs, strict=True) if t not in built}
            if first is None:
                for spec in set(specs) - set(missing.values()):
                    self._remove_staging(spec)
            built |= self._run(missing, known, first, locks) if missing else {}
            if first is not None:
                locks.check()
                for spec in specs:
                    self._staging(spec).remove()
        return [built[target] for target in targets]

    def _digests(self, first: FirstPass | None) -> dict[str, str]:
        read = first.contents(self.catalog) if first else {}
        cache, trust = self.out / DIGESTS, not self.options.verify
        try:
            known = digests(self.catalog, cache, trust_cache=trust, read=read)
        except OSError as error:
            raise StoreError(_CANNOT.format(self.out, error.strerror)) from error
        return known if first is None else first.without_changed(self.catalog, known)

    def _first_pass(self, specs: Sequence[Specs], locks: Locks) -> FirstPass | None:
        """Decode everything if no earlier build has read any of it, and else nothing.

        Otherwise each file would be read twice: for its digest, by which earlier rows are found,
        and for its sound.
        """
        if not self._is_first(specs):
            return None
        check_splits(self.catalog, self.split)
        self._lock((self._staging(spec).name for spec in specs), locks)
        if not self._is_first(specs):  # another process has built it meanwhile
            locks.release()
            return None
        specs = list(dict.fromkeys(specs))
        outputs = [Output(*spec, self._staging(spec)) for spec in specs]
        for output in outputs:
            output.staging.create()
        decoded: list[dict[str, DecodedTrack]] = [{} for _ in specs]
        job = DecodeJob(self.catalog.root, tuple(outputs))
        self._decode(job, first_tasks(self.catalog, len(specs)), decoded, locks)
        return FirstPass(dict(zip(specs, decoded, strict=True)))

    def _is_first(self, specs: Iterable[Specs]) -> bool:
        """Return True if ``out`` has no set of any data, and nothing of a build of this one."""
        sets = [name for name in self.out.names() if "." not in name]
        staged = any(self._staging(spec).exists() for spec in specs)
        return not (sets or staged or is_hashed(self.catalog, self.out / DIGESTS))

    def _lock(self, names: Iterable[str], locks: Locks) -> None:
        try:
            locks.take(self.out / STAGING, names)
        except OSError as error:
            raise StoreError(_CANNOT.format(self.out, error.strerror)) from error

    def _run(
        self,
        missing: Mapping[Folder, Specs],
        known: Mapping[str, str],
        first: FirstPass | None,
        locks: Locks,
    ) -> dict[Folder, BuildResult]:
        """Build each missing set, or wait for another process that builds it."""
        check_splits(self.catalog, self.split)
        outputs = {target: Output(*spec, self._staging(spec)) for target, spec in missing.items()}
        if first is None:
            self._lock((output.staging.name for output in outputs.values()), locks)
        # The set has a lock of its own, because another copy of the data may produce the same.
        self._lock((target.name for target in outputs), locks)
        # The process that held the locks may have built the same sets.
        built = _finished(outputs, self.options)
        if left := {t: output for t, output in outputs.items() if t not in built}:
            built |= self._build(left, known, first, locks)
        locks.check()
        for output in outputs.values():
            output.staging.remove()
        return built

    def _remove_staging(self, spec: Specs) -> None:
        """Remove what a process left that was killed when its set was whole; not while in use."""
        if (staging := self._staging(spec)).exists():
            with suppress(OSError), staging.parent.lock(f"{staging.name}.lock", 0.0):
                staging.remove()

    def _word_store(self) -> WordStore:
        """Return where the acoustic fingerprints wait until all tracks are compared."""
        return WordStore((self.out / STAGING).here())

    def _staging(self, spec: Specs) -> Folder:
        return self.out / STAGING / f"{root_key(self.catalog)}-{feature_key(*spec)}"

    def _build(
        self,
        outputs: Mapping[Folder, Output],
        known: Mapping[str, str],
        first: FirstPass | None,
        locks: Locks,
    ) -> dict[Folder, BuildResult]:
        job = DecodeJob(self.catalog.root, tuple(outputs.values()))
        keys = track_keys(self.catalog, known)
        if first is None:
            decoded, before = self._reusable(job, keys)
        else:
            decoded, before = first.tracks(job, keys), Compared()
        num_resumed = [0 if first else len(tracks) for tracks in decoded]
        tasks = decode_tasks(self.catalog, keys, known, decoded)
        if tasks or first is None:  # a first pass has reported what it did
            self._decode(job, tasks, decoded, locks)
        built, copies = {}, None
        search = partial(near_pairs, before=before, scratch=(self.out / STAGING).here())
        for (target, output), tracks, count in zip(
            outputs.items(), decoded, num_resumed, strict=True
        ):
            verdicts = {name: track.verdict for name, track in tracks.items()}
            try:
                decision = decide(
                    self.catalog, verdicts, self.split, self.options.tolerance, copies, search
                )
            except (BuildError, SplitError) as error:
                # List the bad files next to where the feature set would have been.
                name, judged = f"{target.name}.rejects.csv", with_listing(self.catalog, verdicts)
                listed = ((track, judged[track.track_id]) for track in self.catalog.tracks)
                count = write_rejects(self.out, listed, name)
                raise type(error)(
                    f"{error}\nThe {count} files that cannot be read or used: {self.out / name}"
                ) from error
            copies = decision.copies  # the same for all sets, so that their splits are equal
            found = assemble(self.catalog, output, decision, tracks, target, locks)
            built[target] = BuildResult(found, count)
        return built

    def _reusable(
        self, job: DecodeJob, keys: Mapping[str, str]
    ) -> tuple[list[dict[str, DecodedTrack]], Compared]:
        """Find the tracks that need not be decoded again: track_id -> track, for each output.

        Also returns what one of the sets that have them knows of near copies.
        """
        reusable, compared, store = [], [], self._word_store()
        for output in job.outputs:
            output.staging.create()
            key = feature_key(output.clip, output.feature)
            stored, known = stored_tracks(self.out, key, keys.values(), store.add)
            compared += known
            found = stored | staged_tracks(output.staging, store.add)
            reusable.append(
                {
                    name: replace(track, verdict=replace(track.verdict, track_id=name))
                    for name, key in keys.items()
                    if (track := found.get(key)) and name not in self.catalog.rejected
                }
            )
        return reusable, compared_before(keys, compared)

    def _decode(
        self,
        job: DecodeJob,
        tasks: Sequence[DecodeTask],
        decoded: Sequence[dict[str, DecodedTrack]],
        locks: Locks,
    ) -> None:
        """Decode what is missing and add it to ``decoded``."""
        report = self.options.progress or (lambda progress: None)
        reused = [[track.verdict for track in tracks.values()] for tracks in decoded]
        store = self._word_store()
        done = BuildProgress.begun(self.catalog, len(tasks), reused)
        report(done)
        job = replace(job, is_little=len(tasks) <= min(_FEW, done.resumed))
        for batch, found in self.options.decode(job, decode_batches(tasks)) if tasks else ():
            for number, verdicts in found.items():
                staging = job.outputs[number].staging
                kept = (replace(one, signature=store.add(one.signature)) for one in verdicts)
                tracks = batch_tracks(staging, batch_name(batch), kept)
                decoded[number].update({track.verdict.track_id: track for track in tracks})
            locks.check()
            done = done.after(len(batch), found)
            report(done)
