"""The one pass over all audio: tracks to rows and verdicts, on the cluster or here."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipelines.audio.sandbox import Decoder
    from pipelines.build.decode import Job, Piece
    from pipelines.verdicts import Verdict


def decode_on_cluster(
    job: Job, pending: Sequence[Piece]
) -> Iterator[tuple[Piece, dict[int, list[Verdict]]]]:
    """Runs pieces with Ray Data on the cluster that is connected; rows stay in staging.

    Yields:
        A piece and its verdicts for each output, in the order in which pieces end.

    Raises:
        BuildError: The processes that do the work die again and again.
        StorageFullError: No room is left in a staging folder.
    """
    from pipelines.build.ray_pass import run_all

    for number, verdicts in run_all(decode_piece, pending, job):
        yield pending[number], verdicts


def decode_here(
    job: Job, pending: Sequence[Piece]
) -> Iterator[tuple[Piece, dict[int, list[Verdict]]]]:
    """The same in this process, one piece after the other and without Ray."""
    for piece in pending:
        yield piece, decode_piece(piece, job)


def decode_piece(piece: Piece, job: Job) -> dict[int, list[Verdict]]:
    """One piece, with the decoder of this process."""
    from pipelines.build.decode import run_piece

    return run_piece(job, piece, _decoder())


@cache
def _decoder() -> Decoder:
    """The one of this process, which takes many pieces."""
    from pipelines.audio.sandbox import Decoder

    return Decoder()
