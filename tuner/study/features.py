"""First stage: find the audio, and build the feature sets that the trials need."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import SpecError
from pipelines.features.rules import check_front_end
from pipelines.sources.files import is_uri
from pipelines.storage import Folder, room
from tuner.config.fill_in import DEMO_ROOT
from tuner.errors import StudyError, StudyExistsError, UsageError
from tuner.ledger.extension import newest_of
from tuner.ledger.trust import clips_in_words, leak_in_words, worst_leakage
from tuner.study.baseline_sets import baseline_sources
from tuner.trials.likeness import space_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipelines.build.options import BuildResult
    from pipelines.build.progress import BuildProgress
    from pipelines.features import FeatureSpec
    from pipelines.settings import ClipSpec
    from pipelines.sources.tracks import Catalog
    from pipelines.store import FeatureSet
    from tuner.config import Space
    from tuner.config.data import Place
    from tuner.ledger.journal import Record, StudyPaths
    from tuner.study.context import Context


# -- before the study starts


def data_source(root: str, storage: Folder) -> str | Path:
    """Return the address of the audio.

    Returns:
        The given folder or manifest, its URI as given, or the built-in demo in the storage.
    """
    if root == DEMO_ROOT:
        return (storage / "demo-data").address
    return root if is_uri(root) else Path(root).expanduser()


def catalog_of(place: Place, source: str | Path) -> Catalog:
    """Read the data of a study.

    Args:
        place: What its settings say.
        source: Where ``place.root`` is; see ``data_source``.

    Raises:
        UserError: No audio, a single class, or an invalid manifest.
    """
    from pipelines.sources.catalog import read_catalog

    return read_catalog(source, label=place.label, audio_root=place.audio_root)


def ensure_demo(folder: str | Path, progress: Callable[[str], None]) -> None:
    """Write the demo dataset unless it exists; ``progress`` gets a line now and then."""
    from pipelines.demo import write_demo

    write_demo(
        folder, progress=lambda done, total: progress(f"demo dataset: {done} of {total} tracks")
    )


def check_source(space: Space, source: str | Path) -> None:
    """Check that the data can be used; takes a moment and starts nothing.

    Raises:
        UserError: No audio, a single class, too few groups, or an invalid manifest.
    """
    from pipelines.splits.decide import check_splits

    data = space.template.data
    check_splits(catalog_of(data.place, source), data.split_spec)


def check_settings(space: Space) -> None:
    """Check that the pipeline accepts every front end of the space.

    Raises:
        UsageError: One of them is impossible; says why.
    """
    for clip, feature in space.feature_variants():
        try:
            check_front_end(clip, feature)
        except SpecError as error:
            raise UsageError(f"{space.file}: {error}") from None


# -- the stage


def build_features(study: Context) -> None:
    """Build every feature set that the study's trials need, or find it built; record nothing.

    Raises:
        UserError: The data cannot be used, or the disk is full.
        StudyError: The feature sets disagree on the split.
        StudyExistsError: The data has changed since the study began.
    """
    catalog = catalog_of(study.space.template.data.place, study.paths.data)
    sources = baseline_sources(study.space, study.cluster, len(catalog.tracks))
    more = [source.key for source in sources if source.key]
    variants = variants_of(study.space, list(study.ledger.records()))
    wanted = [*variants, *more]
    built = build_all(study.space, catalog, study.paths.features, study.terminal.files, wanted)
    study.feature_paths = {k: str(one.feature_set.folder.resolved()) for k, one in built.items()}
    study.baseline_sources = sources
    own = [built[key] for key in variants]
    _refuse_different_splits([result.feature_set for result in own])
    known = (study.ledger.last("features") or {}).get("features", [])
    before = {one["fingerprint"]: one.get("streamed", False) for one in known}
    study.streamed = {key for key, one in built.items() if is_streamed(one.feature_set, before)}
    described = [
        describe(built[key]) | {"lost": list(catalog.lost), "streamed": key in study.streamed}
        for key in variants
    ]
    told = catalog.told(study.space.template.data.split_spec)
    for line in (*told, *catalog.lost):
        study.terminal.say(f"data: {line}")
    _compare(study.paths.name, study.ledger.last("features"), [
        one["fingerprint"] for one in described
    ])  # fmt: skip
    study.features = described
    study.terminal.say(_in_words(described, study.space.template.data.num_folds))


def refuse_other_audio(space: Space, paths: StudyPaths, records: Sequence[Record]) -> None:
    """Check that the audio of a study that has begun is what it was, before anything is built.

    Raises:
        StudyExistsError: It has changed.
        UserError: It cannot be read.
    """
    from pipelines.build.naming import fingerprints

    known = newest_of(records).get("features")
    is_demo = space.template.data.root == DEMO_ROOT  # which is written again if it is missing
    if known is None or (is_demo and not Folder.at(paths.data).exists()):
        return
    variants, split = variants_of(space, records), space.template.data.split_spec
    catalog = catalog_of(space.template.data.place, paths.data)
    _compare(paths.name, known, fingerprints(catalog, paths.features, variants, split))


def _compare(study: str, before: Record | None, has: list[str]) -> None:
    """Raise if a study has other feature sets than before; an extension may add some."""
    had = [one["fingerprint"] for one in before["features"]] if before else []
    if had != (same := has[: len(had)]):
        changed = f"the audio, its labels or the split: feature sets were {had}, are {same}"
        raise StudyExistsError(study, [changed])


def variants_of(space: Space, records: Sequence[Record]) -> list[tuple[ClipSpec, FeatureSpec]]:
    """Return the settings of a study's feature sets: those that it began with, then new ones.

    Trials from before an extension need theirs, even if the space has no such trial any more.
    """
    now = space.settings()
    began = [r if r["kind"] == "study" else r.get("space") for r in records]
    others = [
        space_of(one["settings"])
        for one in began
        if one and any(
            now.get(name) != text
            for name, text in one["settings"].items() if name.startswith(("model", "features."))
        )
    ]  # fmt: skip
    return list(dict.fromkeys(key for one in (*others, space) for key in one.feature_variants()))


def build_all(
    space: Space,
    catalog: Catalog,
    folder: Folder | Path,
    progress: Callable[[BuildProgress], None],
    wanted: Sequence[tuple[ClipSpec, FeatureSpec]] = (),
) -> dict[tuple[ClipSpec, FeatureSpec], BuildResult]:
    """Build the missing feature sets of a space, or those that are wanted, under ``folder``.

    Raises:
        UserError: The data cannot be used, or the disk is full.
    """
    from pipelines.build.building import build_sets
    from pipelines.build.options import BuildOptions
    from pipelines.settings import Tolerance

    # Neither the split nor the share of bad files can be a range, so all sets have the same.
    data = space.template.data
    wanted = tuple(dict.fromkeys(wanted or space.feature_variants()))
    options = BuildOptions(Tolerance(data.max_bad_share), progress=progress)
    built = build_sets(catalog, folder, wanted, data.split_spec, options)
    return dict(zip(wanted, built, strict=True))


def is_streamed(found: FeatureSet, before: Mapping[str, bool]) -> bool:
    """Return True if trials read a set in pieces, because it is larger than a node's cache.

    It decides the order of the clips, so a study keeps to what it began with on any machine.

    Args:
        found: The set.
        before: Fingerprint -> what the study has recorded.
    """
    manifest, limit = found.manifest, room.limit_bytes()
    f, m = manifest.shape
    is_large = limit is not None and 2 * f * m * sum(manifest.clips.values()) > limit
    return before.get(manifest.fingerprint, is_large)


def describe(result: BuildResult) -> dict[str, Any]:
    """Return a feature set as the ledger records it."""
    from pipelines.build.writer import first_rejects

    manifest = result.feature_set.manifest
    return {
        "fingerprint": manifest.fingerprint,
        "path": str(result.feature_set.folder),
        "layout": manifest.layout,
        "labels": list(manifest.labels),
        "tracks": asdict(manifest.tracks),
        "clips": dict(manifest.clips),
        "groups": manifest.group_source,
        "leakage": asdict(manifest.leakage),
        "rejects": first_rejects(result.feature_set),
    }


def _in_words(described: list[dict[str, Any]], num_folds: int) -> str:
    """Return the line that the user reads about the feature sets."""
    first = described[0]
    tracks, clips = first["tracks"], clips_in_words(first["clips"], num_folds)
    leak = leak_in_words(worst_leakage(described))
    dropped = dropped_in_words(first["leakage"])  # the same in all sets, like the splits
    rejected = f", {tracks['quarantined']} rejected" if tracks["quarantined"] else ""
    return (
        f"features: {tracks['listed']} tracks{rejected}; clips {clips}; "
        f"groups: {first['groups']}; "
        + ("no leak between the splits" if leak == "passed" else leak)
        + (f"; {dropped}" if dropped else "")
    )


def dropped_in_words(leakage: Mapping[str, Any]) -> str:
    """Say which tracks ``data.leaks: drop`` dropped from a feature set; empty if none.

    Args:
        leakage: `pipelines.splits.leakage.Leakage` as JSON; sets of earlier versions count none.
    """
    num_val = leakage.get("dropped_val", 0)
    num_train = leakage.get("dropped", 0) - num_val
    counted = ((num_train, "training", "validation or test"), (num_val, "validation", "test"))
    return "; ".join(
        f"{number} {split} {'track' if number == 1 else 'tracks'} dropped, with a copy or the "
        f"group in {better}"
        for number, split, better in counted
        if number
    )


def _refuse_different_splits(feature_sets: list[FeatureSet]) -> None:
    """Raise if the feature sets split the tracks differently: all trials need the same tracks.

    Duplicates are searched for independently of the features and once for all sets, so only
    verdicts on single files can differ, for example on very short ones.
    """
    tables = (one.tracks().select(["track_id", "split"]).to_pylist() for one in feature_sets)
    splits = [{track["track_id"]: track["split"] for track in table} for table in tables]
    if any(other != splits[0] for other in splits[1:]):
        raise StudyError(
            "the feature sets of this study split the tracks differently, because some files can "
            "be used at one sample rate only; remove them (rejects.csv in the feature sets lists "
            "them), or search the sample rate in separate studies"
        )
