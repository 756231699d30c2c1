"""A few tracks to their clips and verdicts, as one finished piece of work on disk."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import pyarrow

from pipelines.errors import AudioRejected
from pipelines.spec import ClipSpec, FeatureSpec, num_frames
from pipelines.store import clips_schema
from pipelines.tracks import Track, locate, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

# A piece: large enough that starting it costs little, small enough that little is lost with it.
_MAX_TRACKS = 16
_MIN_PIECES = 32


@dataclass(frozen=True)
class Job:
    """What all pieces of one build share.

    Attributes:
        root: the data set's folder.
        staging: where finished pieces are kept until all are there.
        clip: how clips are cut.
        feature: how they are transformed.
    """

    root: Path
    staging: Path
    clip: ClipSpec
    feature: FeatureSpec


@dataclass(frozen=True)
class Verdict:
    """What became of one file.

    Attributes:
        track_id: the file.
        verdict: used, used with a remark, or not used.
        reason: the code of a rejection, or the flags, separated by spaces.
        detail: the rejection in words.
        seconds: length that was decoded.
        digest: of the decoded samples; empty when not used.
        signature: for finding near copies; empty when not used.
    """

    track_id: str
    verdict: Literal["ok", "flagged", "quarantined"]
    reason: str = ""
    detail: str = ""
    seconds: float = 0.0
    digest: str = ""
    signature: tuple[float, ...] = ()


def pieces(tracks: Sequence[Track]) -> list[tuple[Track, ...]]:
    """Cuts the tracks into pieces of work, in order and the same in every run."""
    size = max(1, min(_MAX_TRACKS, len(tracks) // _MIN_PIECES))
    return [tuple(tracks[i : i + size]) for i in range(0, len(tracks), size)]


def piece_name(tracks: Iterable[Track]) -> str:
    """The name of a piece of work: a hash of its tracks."""
    names = " ".join(track.track_id for track in tracks)
    return hashlib.blake2b(names.encode(), digest_size=12).hexdigest()


def clips_file(job: Job, name: str) -> Path:
    """Where the clips of a piece lie, as an Arrow file with one batch for each used track."""
    return job.staging / f"{name}.arrow"


def load_verdicts(job: Job, name: str) -> list[Verdict] | None:
    """The verdicts of a finished piece, or None when it is not finished.

    The verdicts are written after the clips, so that they vouch for them.
    """
    try:
        rows = json.loads((job.staging / f"{name}.json").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
    return [verdict_from_json(row) for row in rows]


def verdict_from_json(row: dict[str, object]) -> Verdict:
    """The verdict that `asdict` and JSON took apart."""
    signature = row.pop("signature")
    assert isinstance(signature, list)
    return Verdict(**row, signature=tuple(signature))  # type: ignore[arg-type]


def run_piece(job: Job, tracks: Sequence[Track]) -> list[Verdict]:
    """Decodes, cuts and transforms the tracks of a piece and keeps the result in staging.

    Args:
        job: what all pieces share.
        tracks: the tracks of this one.

    Returns:
        One verdict for each track, in order.

    Raises:
        OSError: The staging folder cannot be written.
    """
    name = piece_name(tracks)
    partial = clips_file(job, name).with_suffix(".partial")
    schema = clips_schema((job.feature.n_mels, num_frames(job.clip, job.feature)))
    verdicts = []
    with pyarrow.OSFile(str(partial), "wb") as sink, pyarrow.ipc.new_file(sink, schema) as file:
        for track in tracks:
            verdict, clips = _run_track(job, track, schema)
            verdicts.append(verdict)
            if clips is not None:
                file.write_batch(clips)
    partial.replace(clips_file(job, name))
    text = json.dumps([asdict(verdict) for verdict in verdicts], ensure_ascii=True)
    partial = partial.with_suffix(".json.partial")
    partial.write_text(text, encoding="ascii")
    partial.replace(job.staging / f"{name}.json")
    return verdicts


def _run_track(
    job: Job, track: Track, schema: pyarrow.Schema
) -> tuple[Verdict, pyarrow.RecordBatch | None]:
    # torch, torchaudio and the decoder are loaded where the work is done, not by the driver
    from pipelines.audio import decode
    from pipelines.clips import cut
    from pipelines.duplicates import signature
    from pipelines.features import transform

    rate = job.feature.sample_rate
    try:
        sound = decode(locate(job.root, track.path), rate)
    except AudioRejected as error:
        detail = printable(error.detail)
        return Verdict(track.track_id, "quarantined", error.code, detail), None
    clips = cut(sound.samples, rate, job.clip)
    features = transform(clips.samples, job.feature)
    flags = sorted({*sound.flags, *(["W_PADDED"] if clips.padded else [])})
    vector = tuple(round(float(value), 3) for value in signature(sound.samples, rate))
    verdict = Verdict(
        track.track_id,
        "flagged" if flags else "ok",
        reason=" ".join(flags),
        seconds=sound.seconds,
        digest=sound.pcm_digest,
        signature=vector,
    )
    num_clips = len(features)
    flat = pyarrow.array(features.reshape(-1))
    tensor = schema.field("features").type
    storage = pyarrow.FixedSizeListArray.from_arrays(flat, features[0].size)
    batch = pyarrow.record_batch(
        [
            pyarrow.array([track.track_id] * num_clips),
            pyarrow.array(range(num_clips), pyarrow.int32()),
            pyarrow.array(clips.start_s),
            pyarrow.array([printable(track.label)] * num_clips),
            pyarrow.ExtensionArray.from_storage(tensor, storage),
        ],
        schema=schema,
    )
    return verdict, batch


@contextmanager
def silent_decoders() -> Iterator[None]:
    """Sends what C libraries write to standard error to nowhere.

    libmpg123 writes a line for every damaged MP3 frame and has no switch within libsndfile.
    For processes that do nothing else at the time.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
