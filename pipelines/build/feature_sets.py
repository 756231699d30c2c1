"""The feature sets of a catalog: found, or built from what is new."""

from __future__ import annotations

import importlib.util
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.build.building import Built, Order, build_missing, root_key, track_keys
from pipelines.build.decode_pass import decode_on_cluster
from pipelines.errors import SpecError, StorageFullError, StoreError, is_storage_full
from pipelines.settings import ClipSpec, FeatureSpec, SplitSpec, fingerprint, problems
from pipelines.sources.content import content_digest, digests
from pipelines.sources.files import EXTRA_EXTENSIONS
from pipelines.splits.tolerance import Tolerance
from pipelines.store.feature_set import find_feature_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pipelines.build.building import DecodePass
    from pipelines.build.progress import Progress
    from pipelines.sources.tracks import Catalog
    from pipelines.store.feature_set import FeatureSet

Specs = tuple[ClipSpec, FeatureSpec]


@dataclass(frozen=True)
class BuildResult:
    """A feature set and how it came about.

    Attributes:
        feature_set: the finished set.
        seconds: wall time of the call that made it, with the other sets of that call.
        resumed_tracks: tracks whose rows earlier builds had made.
        reused: the set was there already and nothing was built.
    """

    feature_set: FeatureSet
    seconds: float
    resumed_tracks: int
    reused: bool


def build(  # noqa: PLR0913  # what is built, where, and what a caller may watch
    catalog: Catalog,
    out: Path,
    clip: ClipSpec,
    feature: FeatureSpec,
    split: SplitSpec,
    progress: Callable[[Progress], None] | None = None,
    *,
    max_bad_share: float = 0.2,
    drop_lost_classes: bool = False,
    verify: bool = False,
    decode: DecodePass = decode_on_cluster,
) -> BuildResult:
    """Builds the feature set of a catalog, or returns the one that is there; see `build_sets`."""
    specs = [(clip, feature)]
    return build_sets(
        catalog,
        out,
        specs,
        split,
        progress,
        max_bad_share=max_bad_share,
        drop_lost_classes=drop_lost_classes,
        verify=verify,
        decode=decode,
    )[0]


def build_sets(  # noqa: PLR0913  # see build
    catalog: Catalog,
    out: Path,
    specs: Sequence[Specs],
    split: SplitSpec,
    progress: Callable[[Progress], None] | None = None,
    *,
    max_bad_share: float = 0.2,
    drop_lost_classes: bool = False,
    verify: bool = False,
    decode: DecodePass = decode_on_cluster,
) -> list[BuildResult]:
    """Builds several feature sets of one catalog, or returns those that are there.

    Each track is decoded once for all sets that share a sample rate, and not at all when a
    stopped build or a finished feature set below `out` has its rows already: a file that was
    added or changed costs itself alone. Of two builds of the same set at a time one builds and
    the other waits for it.

    Args:
        catalog: the tracks.
        out: the folder that holds feature sets; each is written to `<out>/<fingerprint>`.
        specs: how clips are cut and transformed, for each set.
        split: how tracks are put on sides; the same sides in all sets.
        progress: called now and then.
        max_bad_share: more bad files than this share stop the build.
        drop_lost_classes: go on without a class that lost all of its files.
        verify: read all source files and all finished rows again; what was damaged is made anew.
        decode: what runs the decoding; by default Ray Data on the cluster that is connected.

    Returns:
        The sets in the order of `specs`.

    Raises:
        SpecError: Specs cannot work together.
        SplitError: The groups cannot be put on three sides.
        BuildError: Too many files were rejected, or a class lost all of its files.
        StoreError: `out` cannot be written to.
        StorageFullError: No room left.
    """
    begun = time.monotonic()
    tolerance = Tolerance(max_bad_share, drop_lost_classes)
    for clip, feature in specs:
        if faults := problems(clip, feature):
            raise SpecError("; ".join(f"{field}: {text}" for field, text in faults))
    out = _made(out)
    known = _digests(catalog, out, trust_cache=not verify)
    paths = _paths(catalog, out, specs, split, known)
    places = dict(zip(paths, specs, strict=True))
    there = {path: found for path in places if (found := find_feature_set(path, digests=verify))}
    built = {path: Built(found, 0, reused=True) for path, found in there.items()}
    if missing := {path: specs for path, specs in places.items() if path not in there}:
        order = Order(
            catalog, track_keys(catalog, known), known, split, out, verify, tolerance, decode
        )
        built |= build_missing(order, missing, progress or (lambda progress: None))
    seconds = time.monotonic() - begun
    return [
        BuildResult(one.feature_set, seconds, one.resumed_tracks, one.reused)
        for one in (built[path] for path in paths)
    ]


def _made(out: Path) -> Path:
    out = out.resolve()
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
    return out


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_storage_full(error):
            raise StorageFullError(out) from error
        raise StoreError(f"feature sets cannot be written to {out}: {error.strerror}") from error


def _digests(catalog: Catalog, out: Path, *, trust_cache: bool) -> dict[str, str]:
    cache_file = out / ".digests" / f"{root_key(catalog)}.json"
    with _writing(out):
        return digests(catalog, cache_file, trust_cache=trust_cache)


def _paths(
    catalog: Catalog,
    out: Path,
    specs: Sequence[Specs],
    split: SplitSpec,
    known: Mapping[str, str],
) -> list[Path]:
    digest = content_digest(catalog, known)
    if _reads_more(catalog):
        digest += "+ffmpeg"
    return [out / fingerprint(digest, *spec, split) for spec in specs]


def _reads_more(catalog: Catalog) -> bool:
    """Whether the extra `m4a` is installed and there are files that are used with it only."""
    if not importlib.util.find_spec("av"):
        return False
    suffixes = {f".{track.path.rpartition('.')[2].lower()}" for track in catalog.tracks}
    return not suffixes.isdisjoint(EXTRA_EXTENSIONS)
