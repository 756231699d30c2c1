"""Command line that builds a feature set from audio files: ``python -m pipelines.build``."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import ValidationError

from pipelines.command import Command, ending
from pipelines.errors import SpecError
from pipelines.features import FeatureSpec
from pipelines.permissions import private_umask
from pipelines.plain_text import echo, printable
from pipelines.settings import Block, ClipSpec, SplitSpec, Tolerance, in_words
from pipelines.sources.catalog import LAYOUTS, read_catalog
from pipelines.sources.files.kinds import counted
from pipelines.sources.listing import shown_few
from pipelines.storage import Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pipelines.build.decode import DecodeBatch, Verdicts
    from pipelines.build.options import BuildResult
    from pipelines.build.ray_watch import OnLoss
    from pipelines.build.tasks import DecodeJob

EXIT_SOME_REJECTED = 3
AGAIN = "interrupted; to continue, run the same command: finished work is kept"

_Settings = TypeVar("_Settings", bound=Block)


def _add_options(*blocks: type[Block]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add an option for each setting, with its default and description."""
    fields = [item for block in blocks for item in block.model_fields.items()]

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name, field in reversed(fields):
            default = "" if field.default == () else field.default
            inner = get_args(field.annotation)  # int of ``int | None``, or a Literal's words
            words = get_origin(field.annotation) is Literal
            command = click.option(
                f"--{name.replace('_', '-')}",
                type=str if words else inner[0] if inner else field.annotation,
                metavar=f"[{'|'.join(inner)}]" if words else None,
                default=default,
                show_default=default not in ("", None),
                help=field.description,
            )(command)
        return command

    return add


def _block_from(block: type[_Settings], options: Mapping[str, Any]) -> _Settings:
    """Make a settings block from the options; comma-separated options become tuples."""
    values = {name: options[name] for name in block.model_fields}
    for name, field in block.model_fields.items():
        if field.default == ():
            values[name] = tuple(filter(None, map(str.strip, values[name].split(","))))
    try:
        return block(**values)
    except ValidationError as error:
        raise SpecError(in_words(error)) from None


@click.command(cls=Command, context_settings={"max_content_width": 100})
@click.argument("data")
@click.option(
    "--out", required=True, metavar="DIR", help="Folder for the sets, or s3://bucket/features."
)
@click.option(
    "--layout",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", *LAYOUTS]),
    help="Layout of DATA.",
)
@click.option("--label", default="label", show_default=True, help="Manifest column of the class.")
@click.option(
    "--audio-root", metavar="DIR", help="Folder that the paths of a manifest start from."
)
@_add_options(ClipSpec, FeatureSpec, SplitSpec)
@click.option(
    "--max-bad-share",
    default=0.2,
    show_default=True,
    help="Stop the build if a larger share of the files is bad.",
)
@click.option("--drop-lost-classes", is_flag=True, help="Drop classes without usable files.")
@click.option("--verify", is_flag=True, help="Re-read all files; rebuild what is damaged.")
@click.option("--json", "as_json", is_flag=True, help="Last line on stdout is a JSON object.")
def main(data: str, out: str, layout: Any, label: str, as_json: bool, **options: Any) -> None:
    """Build the feature set of DATA: a folder, a manifest file, or a URI of either."""
    # Here, because --help must not wait for NumPy and Arrow.
    from pipelines.build.building import build_sets
    from pipelines.build.console import as_data, progress_lines, summary
    from pipelines.build.options import BuildOptions
    from pipelines.build.ray_start import end_at_once

    started = time.monotonic()
    with ending(lambda: AGAIN) as stop, private_umask(Folder.at(out).here()):
        stop.last_acts.append(end_at_once)
        stop.tries_again = True
        clip, feature = _block_from(ClipSpec, options), _block_from(FeatureSpec, options)
        feature = feature.at_rate_of_networks()
        split = _block_from(SplitSpec, options)
        catalog = read_catalog(data, layout, label, audio_root=options["audio_root"])
        if feature.kind == "embedding":
            _fetch_weights(feature)
        tolerance = Tolerance(options["max_bad_share"], options["drop_lost_classes"])
        how = BuildOptions(
            tolerance, options["verify"], partial(_decode_on_ray, stop.fail), progress_lines()
        )
        result = build_sets(catalog, out, [(clip, feature)], split, how)[0]
    found = result.feature_set
    notes = [*catalog.told(split), *catalog.lost]
    notes += _reuse_notes(result, verify=options["verify"])
    if catalog.unlisted:
        notes.append(f"not listed: {shown_few([*map(printable, catalog.unlisted)])}")
    echo(summary(found, notes, counted(catalog.others)), err=as_json)
    if as_json:
        echo(json.dumps(as_data(found, time.monotonic() - started, result.resumed_tracks)))
    is_whole = not (found.manifest.tracks.quarantined or catalog.lost)
    sys.exit(0 if is_whole else EXIT_SOME_REJECTED)


def _fetch_weights(feature: FeatureSpec) -> None:
    """Fetch the weights of an embedding here, with a line, and not in the workers.

    Raises:
        WeightsError: They can neither be found nor fetched; says how to get them.
    """
    from pipelines.features.networks import is_file, selection, store

    for one in selection.parse_all(feature.networks):
        if not is_file(one.source):
            store.weights_file(one.network, lambda line: echo(line, err=True))


def _reuse_notes(result: BuildResult, *, verify: bool) -> list[str]:
    if result.reused and verify:
        return ["verified: no file of the data or of the set has changed"]
    if result.reused:
        return ["unchanged: the feature set exists, and no audio was read"]
    if result.resumed_tracks:
        listed = result.feature_set.manifest.tracks.listed
        return [f"{result.resumed_tracks} of {listed} tracks reused from earlier builds"]
    return []


def _decode_on_ray(
    on_loss: OnLoss, job: DecodeJob, batches: Sequence[DecodeBatch]
) -> Iterator[tuple[DecodeBatch, Verdicts]]:
    """Decode on Ray, which is started or joined only if there is audio to decode."""
    from pipelines.build.decode import decode_here
    from pipelines.build.ray_pass import decode_on_cluster, local_ray

    if job.belongs_here:
        yield from decode_here(job, batches)
        return
    with local_ray(on_loss):
        yield from decode_on_cluster(job, batches)


if __name__ == "__main__":
    main()
