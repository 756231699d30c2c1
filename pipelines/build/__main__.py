"""Audio files to a finished feature set on the command line; `python -m pipelines.build`."""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.build.feature_sets import BuildResult, build, build_sets
from pipelines.errors import PipelineError
from pipelines.settings import KINDS, ClipSpec, FeatureSpec, SplitSpec
from pipelines.sources.catalog import LAYOUTS, read_catalog
from pipelines.sources.tracks import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

    from pipelines.build.decode import Job, Piece
    from pipelines.sources.tracks import Catalog
    from pipelines.verdicts import Verdict

__all__ = ["BuildResult", "build", "build_sets", "main"]

EXIT_SOME_REJECTED = 3


@click.command(context_settings={"max_content_width": 100})
@click.argument("data")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the sets.")
@click.option(
    "--layout",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", *LAYOUTS]),
    help="How DATA is laid out.",
)
@click.option("--label", default="label", show_default=True, help="Manifest column of the class.")
@click.option("--clip-seconds", default=3.0, show_default=True, help="Length of a clip.")
@click.option("--clips-per-track", default=10, show_default=True, help="Clips of each track.")
@click.option("--hop-seconds", type=float, help="A clip every so many seconds instead.")
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
    help="What is put on a side: group, or clip (leaky, for comparison only).",
)
@click.option("--train", default=0.70, show_default=True, help="Share for training.")
@click.option("--val", default=0.15, show_default=True, help="Share for validation.")
@click.option("--test", default=0.15, show_default=True, help="Share for the test.")
@click.option("--column", help="Manifest column that gives the split instead of shares.")
@click.option("--val-values", default="", help="Its values that mean validation: 4 or 4,5.")
@click.option("--test-values", default="", help="Its values that mean test.")
@click.option("--seed", default=0, show_default=True, help="Another seed, another split.")
@click.option(
    "--leaks",
    default="report",
    show_default=True,
    help="Groups and copies on two sides: report, or drop those that matter less.",
)
@click.option("--max-bad-share", default=0.2, show_default=True, help="More bad files stop it.")
@click.option("--drop-lost-classes", is_flag=True, help="Go on without classes that lost all.")
@click.option("--verify", is_flag=True, help="Read all files again; make anew what is damaged.")
@click.option("--json", "as_json", is_flag=True, help="Last line on stdout is a JSON object.")
def main(
    data: str,
    out: Path,
    layout: Any,
    label: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Builds the feature set of DATA: a folder, a manifest file, or a URI of either."""
    begun = time.monotonic()
    try:
        clip, feature, split = _specs(options)
        catalog = read_catalog(data, layout, label)
        result = _build_alone(catalog, out, (clip, feature, split), options)
    except PipelineError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as stop:
        click.echo("interrupted; run the same command again, finished work is kept", err=True)
        sys.exit(143 if isinstance(stop, _Terminated) else 130)
    from pipelines.build.console import as_data, summary

    found = result.feature_set
    notes = [*catalog.notes, *_what_was_done(result, verify=options["verify"])]
    if catalog.unlisted:
        notes.append(f"not listed: {', '.join(map(printable, catalog.unlisted[:3]))} ...")
    click.echo(summary(found, notes), err=as_json)
    if as_json:
        print(json.dumps(as_data(found, time.monotonic() - begun, result.resumed_tracks)))
    sys.exit(EXIT_SOME_REJECTED if found.manifest.tracks.quarantined else 0)


def _what_was_done(result: BuildResult, *, verify: bool) -> list[str]:
    if result.reused and verify:
        return ["verified: all files of the data and of the set are as they were"]
    if result.reused:
        return ["unchanged: the set was there, and no audio was read"]
    if result.resumed_tracks:
        listed = result.feature_set.manifest.tracks.listed
        return [f"{result.resumed_tracks} of {listed} tracks taken over from earlier builds"]
    return []


def _specs(options: Mapping[str, Any]) -> tuple[ClipSpec, FeatureSpec, SplitSpec]:
    """The options are the fields of the specs."""
    values = dict(options)
    for name in ("val_values", "test_values"):
        values[name] = tuple(filter(None, map(str.strip, values[name].split(","))))

    def picked(spec: type[Any]) -> dict[str, Any]:
        return {field.name: values[field.name] for field in fields(spec)}

    clip = ClipSpec(**picked(ClipSpec))
    return clip, FeatureSpec(**picked(FeatureSpec)), SplitSpec(**picked(SplitSpec))


def _build_alone(
    catalog: Catalog,
    out: Path,
    specs: tuple[ClipSpec, FeatureSpec, SplitSpec],
    options: Mapping[str, Any],
) -> BuildResult:
    """Builds with a Ray of its own, which is started only when there is audio to decode."""
    from pipelines.build.console import progress_lines

    return build(
        catalog,
        out,
        *specs,
        progress_lines(),
        max_bad_share=options["max_bad_share"],
        drop_lost_classes=options["drop_lost_classes"],
        verify=options["verify"],
        decode=_decode_with_own_ray,
    )


def _decode_with_own_ray(
    job: Job, pending: Sequence[Piece]
) -> Iterator[tuple[Piece, dict[int, list[Verdict]]]]:
    from pipelines.build.decode_pass import decode_on_cluster
    from pipelines.build.ray_pass import local_ray

    with local_ray():
        before = signal.signal(signal.SIGTERM, _terminate)  # Ray's own ends the process at once
        try:
            yield from decode_on_cluster(job, pending)
        finally:
            signal.signal(signal.SIGTERM, before)


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise _Terminated


if __name__ == "__main__":
    main()
