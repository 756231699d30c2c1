"""Audio files to a finished feature set, over Ray Data; `python -m pipelines.build`."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import filelock

from pipelines.catalog import Catalog, Track, content_digest, read_catalog
from pipelines.errors import PipelineError, SpecError
from pipelines.spec import ClipSpec, FeatureSpec, SplitSpec, fingerprint, problems

if TYPE_CHECKING:
    from types import FrameType

    from pipelines.stage import Job, Verdict
    from pipelines.store import FeatureSet

# done, total, rejected: files
Progress = Callable[[int, int, int], None]

EXIT_SOME_REJECTED = 3


@dataclass(frozen=True)
class BuildResult:
    """A feature set and how it came about.

    Attributes:
        feature_set: the finished set.
        seconds: wall time of this call.
        resumed_tracks: tracks that an earlier, interrupted build had finished.
        reused: the set was there already and nothing was built.
    """

    feature_set: FeatureSet
    seconds: float
    resumed_tracks: int
    reused: bool


def build(  # noqa: PLR0913  # what is built, where, and the two things a caller may watch
    catalog: Catalog,
    out: Path,
    clip: ClipSpec,
    feature: FeatureSpec,
    split: SplitSpec,
    progress: Progress | None = None,
    *,
    max_bad_share: float = 0.2,
) -> BuildResult:
    """Builds the feature set of a catalog, or returns the one that is there.

    Every piece of finished work is kept: a build that was stopped goes on where it was. Of two
    builds of the same set at a time one builds and the other waits for it. Ray must run, unless
    the set is there already.

    Args:
        catalog: the tracks.
        out: the folder that holds feature sets; this one is written to `<out>/<fingerprint>`.
        clip: how clips are cut.
        feature: how they are transformed.
        split: how tracks are put on sides.
        progress: called with (files done, files listed, files rejected) now and then.
        max_bad_share: more rejected files than this share stop the build.

    Raises:
        SpecError: The specs cannot work together.
        SplitError: The groups cannot be put on three sides.
        BuildError: Too many files were rejected, or a class lost all of its files.
        StorageFullError: No room left.
    """
    begun = time.monotonic()
    if faults := problems(clip, feature):
        raise SpecError("; ".join(f"{field}: {text}" for field, text in faults))
    final = feature_set_path(catalog, out, clip, feature, split)
    out, name = final.parent, final.name
    if (found := _finished(final)) is not None:
        return BuildResult(found, time.monotonic() - begun, 0, reused=True)

    from pipelines.assemble import assemble, check_splits
    from pipelines.stage import Job
    from pipelines.writer import storage_errors

    check_splits(catalog.tracks, split)
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(out / f".{name}.lock"):
            if (found := _finished(final)) is not None:
                return BuildResult(found, time.monotonic() - begun, 0, reused=True)
            staging = out / f"{name}.staging"
            staging.mkdir(exist_ok=True)
            job = Job(catalog.root, staging, clip, feature)
            verdicts, resumed = _decode_all(job, catalog.tracks, progress)
            found = assemble(
                job, catalog, split, verdicts, final=final, max_bad_share=max_bad_share
            )
            shutil.rmtree(staging)
    return BuildResult(found, time.monotonic() - begun, resumed, reused=False)


def feature_set_path(
    catalog: Catalog, out: Path, clip: ClipSpec, feature: FeatureSpec, split: SplitSpec
) -> Path:
    """Where the feature set of a catalog is or will be: `<out>/<fingerprint>`.

    Reads every file that changed since the last call.
    """
    out = out.resolve()
    where = hashlib.blake2b(str(catalog.root).encode(errors="surrogateescape"), digest_size=8)
    digest = content_digest(catalog, out / ".digests" / f"{where.hexdigest()}.json")
    return out / fingerprint(digest, clip, feature, split)


def _finished(path: Path) -> FeatureSet | None:
    from pipelines.store import is_complete, open_feature_set

    return open_feature_set(path) if is_complete(path) else None


def _decode_all(
    job: Job, tracks: Sequence[Track], progress: Progress | None
) -> tuple[dict[str, Verdict], int]:
    """Brings every piece of work to its end: verdicts by track, and tracks done before."""
    from pipelines.ray_pass import decode_pieces
    from pipelines.stage import load_verdicts, piece_name, pieces

    verdicts: dict[str, Verdict] = {}
    pending = []
    for piece in pieces(tracks):
        done = load_verdicts(job, piece_name(piece))
        if done is None:
            pending.append(piece)
        else:
            verdicts |= {verdict.track_id: verdict for verdict in done}
    resumed = len(verdicts)
    report = progress or (lambda done, total, rejected: None)
    num_rejected = sum(verdict.verdict == "quarantined" for verdict in verdicts.values())
    report(len(verdicts), len(tracks), num_rejected)
    for done in decode_pieces(job, pending):
        verdicts |= {verdict.track_id: verdict for verdict in done}
        num_rejected += sum(verdict.verdict == "quarantined" for verdict in done)
        report(len(verdicts), len(tracks), num_rejected)
    return verdicts, resumed


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the sets.")
@click.option("--clip-seconds", default=3.0, show_default=True, help="Length of a clip.")
@click.option("--clips-per-track", default=10, show_default=True, help="Clips of each track.")
@click.option("--hop-seconds", type=float, help="A clip every so many seconds instead.")
@click.option("--short", default="pad", show_default=True, help="Short tracks: pad or repeat.")
@click.option("--kind", default="logmel", show_default=True, help="Kind of spectrogram.")
@click.option("--sample-rate", default=22050, show_default=True, help="Hz.")
@click.option("--n-fft", default=1024, show_default=True, help="Samples in a Fourier frame.")
@click.option("--win-length", type=int, help="Samples under the window. [default: n-fft]")
@click.option("--hop-length", default=512, show_default=True, help="Samples between frames.")
@click.option("--f-min", default=0.0, show_default=True, help="Lowest frequency, Hz.")
@click.option("--f-max", type=float, help="Highest frequency, Hz. [default: half the rate]")
@click.option("--n-mels", default=64, show_default=True, help="Mel bands.")
@click.option("--group", default="auto", show_default=True, help="auto, track, or a column.")
@click.option("--train", default=0.70, show_default=True, help="Share for training.")
@click.option("--val", default=0.15, show_default=True, help="Share for validation.")
@click.option("--test", default=0.15, show_default=True, help="Share for the test.")
@click.option("--column", help="Manifest column that gives the split instead of shares.")
@click.option("--val-values", default="", help="Its values that mean validation: 4 or 4,5.")
@click.option("--test-values", default="", help="Its values that mean test.")
@click.option("--seed", default=0, show_default=True, help="Another seed, another split.")
@click.option("--max-bad-share", default=0.2, show_default=True, help="More rejects stop it.")
@click.option("--json", "as_json", is_flag=True, help="Last line on stdout is a JSON object.")
def main(
    data: Path, out: Path, as_json: bool, max_bad_share: float, **options: Any
) -> None:  # the options are the fields of the specs
    """Builds the feature set of DATA: a folder of class folders, or a manifest file."""
    begun = time.monotonic()
    try:
        result = _build_alone(data, out, options, max_bad_share)
    except PipelineError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as stop:
        click.echo("interrupted; run the same command again, finished work is kept", err=True)
        sys.exit(143 if isinstance(stop, _Terminated) else 130)
    from pipelines.console import as_data, summary

    found = result.feature_set
    click.echo(summary(found), err=as_json)
    if as_json:
        print(json.dumps(as_data(found, time.monotonic() - begun, result.resumed_tracks)))
    sys.exit(EXIT_SOME_REJECTED if found.manifest.tracks.quarantined else 0)


def _picked(spec: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(spec)}


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise _Terminated


def _build_alone(
    data: Path, out: Path, options: Mapping[str, Any], max_bad_share: float
) -> BuildResult:
    """Builds with a Ray of its own, which is started only when there is work to do."""
    values = dict(options)
    for name in ("val_values", "test_values"):
        values[name] = tuple(filter(None, map(str.strip, values[name].split(","))))
    clip = ClipSpec(**_picked(ClipSpec, values))
    feature = FeatureSpec(**_picked(FeatureSpec, values))
    split = SplitSpec(**_picked(SplitSpec, values))
    catalog = read_catalog(data)
    if _finished(feature_set_path(catalog, out, clip, feature, split)):
        return build(catalog, out, clip, feature, split)
    from pipelines.assemble import check_splits
    from pipelines.console import progress_lines
    from pipelines.ray_pass import local_ray

    check_splits(catalog.tracks, split)  # build does so too, but Ray takes seconds to start
    show = progress_lines()
    with local_ray():
        before = signal.signal(signal.SIGTERM, _terminate)
        try:
            return build(catalog, out, clip, feature, split, show, max_bad_share=max_bad_share)
        finally:
            signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    # What Ray runs must belong to an importable module, not to __main__.
    from pipelines.build import main as imported_main

    imported_main()
