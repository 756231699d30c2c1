"""Command line that builds a feature set from audio files: ``python -m pipelines.build``."""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.build.building import BuildOptions, build_sets
from pipelines.errors import PipelineError
from pipelines.settings import KINDS, ClipSpec, FeatureSpec, SplitSpec
from pipelines.sources.catalog import LAYOUTS, read_catalog
from pipelines.sources.tracks import printable
from pipelines.splits.decide import Tolerance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

    from pipelines.build.building import BuildResult
    from pipelines.build.decode import DecodeBatch, DecodeJob, Verdicts

EXIT_SOME_REJECTED = 3


@click.command(context_settings={"max_content_width": 100})
@click.argument("data")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the sets.")
@click.option(
    "--layout",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", *LAYOUTS]),
    help="Layout of DATA.",
)
@click.option("--label", default="label", show_default=True, help="Manifest column of the class.")
@click.option("--clip-seconds", default=3.0, show_default=True, help="Length of a clip.")
@click.option("--clips-per-track", default=10, show_default=True, help="Clips of each track.")
@click.option("--hop-seconds", type=float, help="Seconds between clips, instead of a number.")
@click.option("--short", default="pad", show_default=True, help="Short tracks: pad or repeat.")
@click.option("--kind", default="logmel", show_default=True, help=f"One of {', '.join(KINDS)}.")
@click.option("--sample-rate", default=22050, show_default=True, help="Hz.")
@click.option("--n-fft", default=1024, show_default=True, help="Samples in a Fourier frame.")
@click.option("--win-length", type=int, help="Samples under the window. [default: n-fft]")
@click.option("--hop-length", default=512, show_default=True, help="Samples between frames.")
@click.option("--f-min", default=0.0, show_default=True, help="Lowest frequency, Hz.")
@click.option("--f-max", type=float, help="Highest frequency, Hz. [default: half the rate]")
@click.option("--n-mels", default=64, show_default=True, help="Mel bands.")
@click.option("--n-mfcc", default=20, show_default=True, help="Cepstral coefficients.")
@click.option("--n-lags", default=128, show_default=True, help="Rows of a tempogram.")
@click.option(
    "--group",
    default="auto",
    show_default=True,
    help="auto, track, tag:artist, tag:album, path:REGEX, or a column.",
)
@click.option(
    "--unit",
    default="group",
    show_default=True,
    help="What is split: groups, or single clips (leaky, for comparison only): group or clip.",
)
@click.option("--train", default=0.70, show_default=True, help="Share of the training split.")
@click.option("--val", default=0.15, show_default=True, help="Share of the validation split.")
@click.option("--test", default=0.15, show_default=True, help="Share of the test split.")
@click.option("--column", help="Manifest column with the split, instead of shares.")
@click.option("--val-values", default="", help="Its values for validation: 4 or 4,5.")
@click.option("--test-values", default="", help="Its values for test.")
@click.option("--seed", default=0, show_default=True, help="Seed of the split.")
@click.option(
    "--leaks",
    default="report",
    show_default=True,
    help="Groups and copies in several splits: report them, or drop all but one split.",
)
@click.option("--max-bad-share", default=0.2, show_default=True, help="Most bad files allowed.")
@click.option("--drop-lost-classes", is_flag=True, help="Continue without classes that lost all.")
@click.option("--verify", is_flag=True, help="Re-read all files; rebuild what is damaged.")
@click.option("--json", "as_json", is_flag=True, help="Last line on stdout is a JSON object.")
def main(data: str, out: Path, layout: Any, label: str, as_json: bool, **options: Any) -> None:
    """Build the feature set of DATA: a folder, a manifest file, or a URI of either."""
    begun = time.monotonic()
    try:
        clip, feature, split = _specs(options)
        catalog = read_catalog(data, layout, label)
        result = build_sets(catalog, out, [(clip, feature)], split, _options(options))[0]
    except PipelineError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as stop:
        click.echo(
            "interrupted; to continue, run the same command: finished work is kept", err=True
        )
        sys.exit(143 if isinstance(stop, _Terminated) else 130)
    from pipelines.build.console import as_data, summary

    found = result.feature_set
    notes = [*catalog.notes, *_reuse_notes(result, verify=options["verify"])]
    if catalog.unlisted:
        notes.append(f"not listed: {', '.join(map(printable, catalog.unlisted[:3]))} ...")
    click.echo(summary(found, notes), err=as_json)
    if as_json:
        print(json.dumps(as_data(found, time.monotonic() - begun, result.resumed_tracks)))
    sys.exit(EXIT_SOME_REJECTED if found.manifest.tracks.quarantined else 0)


def _reuse_notes(result: BuildResult, *, verify: bool) -> list[str]:
    if result.reused and verify:
        return ["verified: no file of the data or of the set has changed"]
    if result.reused:
        return ["unchanged: the feature set exists, and no audio was read"]
    if result.resumed_tracks:
        listed = result.feature_set.manifest.tracks.listed
        return [f"{result.resumed_tracks} of {listed} tracks reused from earlier builds"]
    return []


def _specs(options: Mapping[str, Any]) -> tuple[ClipSpec, FeatureSpec, SplitSpec]:
    """Return the settings, whose fields have the names of the options."""
    values = dict(options)
    for name in ("val_values", "test_values"):
        values[name] = tuple(filter(None, map(str.strip, values[name].split(","))))

    def picked(spec: type[Any]) -> dict[str, Any]:
        return {field.name: values[field.name] for field in fields(spec)}

    clip = ClipSpec(**picked(ClipSpec))
    return clip, FeatureSpec(**picked(FeatureSpec)), SplitSpec(**picked(SplitSpec))


def _options(options: Mapping[str, Any]) -> BuildOptions:
    from pipelines.build.console import progress_lines

    tolerance = Tolerance(options["max_bad_share"], options["drop_lost_classes"])
    return BuildOptions(tolerance, options["verify"], _decode_with_own_ray, progress_lines())


def _decode_with_own_ray(
    job: DecodeJob, batches: Sequence[DecodeBatch]
) -> Iterator[tuple[DecodeBatch, Verdicts]]:
    """Decode with a Ray of this command, which starts only if there is audio to decode."""
    from pipelines.build.ray_pass import decode_on_cluster, local_ray

    with local_ray():
        before = signal.signal(signal.SIGTERM, _terminate)  # Ray's own ends the process at once
        try:
            yield from decode_on_cluster(job, batches)
        finally:
            signal.signal(signal.SIGTERM, before)


class _Terminated(KeyboardInterrupt):
    """The process received SIGTERM."""


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise _Terminated


if __name__ == "__main__":
    main()
