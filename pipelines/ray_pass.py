"""The one pass over all audio, as a Ray Data graph; clips stay on disk, verdicts travel."""

from __future__ import annotations

import json
import logging
import os
import warnings
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipelines.errors import StorageFullError, is_storage_full
from pipelines.stage import Job, Verdict, run_piece, silent_decoders, verdict_from_json
from pipelines.tracks import Track

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def decode_pieces(job: Job, pending: Sequence[Sequence[Track]]) -> Iterator[list[Verdict]]:
    """Runs the pieces on the cluster; only verdicts travel, clips stay in staging.

    Yields:
        The verdicts of one piece, in the order in which pieces end.
    """
    if not pending:
        return
    import ray.data

    # Set here and not at import: the caller's own use of Ray Data keeps its settings.
    with warnings.catch_warnings():
        # copying touches every field, and the deprecated ones speak up
        warnings.simplefilter("ignore", DeprecationWarning)
        context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    with ray.data.DataContext.current(context), _quiet("ray.data"):
        rows = [{"piece": json.dumps([asdict(track) for track in piece])} for piece in pending]
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            run_pieces, batch_size=None, num_cpus=1, fn_kwargs={"job": job}
        )
        for row in data.iter_rows():
            if row["full"]:
                raise StorageFullError(row["full"])
            yield [verdict_from_json(verdict) for verdict in json.loads(row["verdicts"])]


def run_pieces(batch: dict[str, Any], job: Job) -> dict[str, list[str]]:
    """The task that Ray runs on a block of pieces.

    Args:
        batch: column `piece`, each a JSON list of tracks.
        job: what all pieces share.

    Returns:
        Columns `verdicts` (a JSON list for each piece) and `full` (the path that had no room
        left, else empty): an error that the driver must understand travels as data.
    """
    import torch

    torch.set_num_threads(1)
    verdicts, full = [], []
    for text in batch["piece"]:
        tracks = [Track(**row) for row in json.loads(text)]
        try:
            with silent_decoders():
                done = run_piece(job, tracks)
        except OSError as error:
            if not is_storage_full(error):
                raise
            verdicts.append("[]")
            full.append(str(job.staging))
        else:
            verdicts.append(json.dumps([asdict(verdict) for verdict in done]))
            full.append("")
    return {"verdicts": verdicts, "full": full}


@contextmanager
def local_ray() -> Iterator[None]:
    """Ray on this machine, or the cluster that RAY_ADDRESS names, for one build."""
    # Decided before Ray is loaded: it reads these once.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    ray.init(  # noqa: TID251  # this package cannot import the tuner's cluster module
        address=os.environ.get("RAY_ADDRESS") or "local",
        logging_level=logging.ERROR,
        log_to_driver=False,
        **({} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}),
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Lets a logger speak of errors only."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
