"""Open MPEG audio so that its decoder reads every frame that a walk has found."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from pipelines.audio.joined import JoinedSource
from pipelines.audio.reading import Walked
from pipelines.audio.sndfile import SndfileSource
from pipelines.containers.mpeg_frames import counting_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.containers.chunks import Mended
    from pipelines.containers.content import Content, Part
    from pipelines.containers.mpeg import Stream, Stretch

_RESYNC_BYTES = 1000  # libmpg123 gives up if the next frame is 1024 bytes away


def open_mpeg(
    content: Content, stream: Stream, mended: Mended | None = None
) -> SndfileSource | JoinedSource:
    """Open a stream as it is if its decoder will read it whole, else its frames alone.

    libsndfile reads as many samples as it has worked out from the tag, or from the size and the
    rate of the first frame, and stops at the first frame of another kind.

    Args:
        content: The stream.
        stream: Walk over it.
        mended: The file that holds it, if it is in another container.

    Raises:
        soundfile.LibsndfileError: libsndfile cannot read it.
    """
    walked = Walked(stream=stream, mended=mended)
    if len(stream.kinds) > 1:
        runs = groupby(stream.stretches, key=lambda one: one.kind)
        sources = (_of_kind(content, walked, [*stretches]) for _, stretches in runs)
        parts = [
            (one.kind.rate_hz, one.kind.num_channels, one.seconds) for one in stream.stretches
        ]
        return JoinedSource(sources, parts, walked)
    is_joined = any(one.tag for one in stream.stretches[1:])
    if stream.lost < _RESYNC_BYTES and not is_joined:
        begin = stream.tags_end + stream.leading
        tags = range(stream.tags_end)
        sound = content.of([tags, range(begin, len(content))]) if stream.leading else content
        source = SndfileSource(sound, walked)
        # A tag that counts all frames may say how much of them is the encoder's delay.
        is_said = stream.tag is not None and (stream.tag.frames or 0) >= stream.num_frames
        if is_said or source.claimed_frames >= sum(one.samples for one in stream.stretches):
            return source
        source.close()
    return _of_kind(content, walked, stream.stretches)


def _of_kind(content: Content, walked: Walked, stretches: Sequence[Stretch]) -> SndfileSource:
    """Open frames of one kind, behind the tags of the file."""
    assert walked.stream is not None
    parts: list[Part] = [range(one.start, one.end) for one in stretches]
    if stretches[0].kind.layer == 3:
        head, number = content.at(stretches[0].start, 4), sum(one.num_frames for one in stretches)
        parts[:0] = [counting_frame(stretches[0].kind, number, head)]
    return SndfileSource(content.of([range(walked.stream.tags_end), *parts]), walked)
