"""What the files of a folder are: audio, by name or content, or something else, named."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pipelines.errors import AudioRejected
from pipelines.plain_text import first_few
from pipelines.sources.files import is_audio_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.sources.files import Files, FoundFile

HIDDEN = "hidden, or no regular file"


def what_else(files: Files, entry: FoundFile) -> str:
    """Return what a file is that is not audio, in words; empty for audio.

    A file whose name is that of audio is audio, whatever it holds: its content has a verdict
    later. Of others a few kB are read, so that no recording is lost because of its name.

    Args:
        files: The files that it is one of.
        entry: A file found by their scan, not a folder.

    Raises:
        UserError: A remote storage does not answer.
    """
    if entry.kind != "file":
        return HIDDEN
    if is_audio_name(entry.path):
        return ""
    # Imported here: libsndfile takes a moment, and most folders hold nothing else.
    from pipelines.containers.signatures import HEAD_BYTES, is_audio, other_kind

    try:
        head = files.head(entry.path, HEAD_BYTES)
    except (AudioRejected, OSError) as error:
        reason = error.detail if isinstance(error, AudioRejected) else error.strerror
        return f"not readable ({reason})"
    return "" if is_audio(head) else other_kind(head)


def counted(others: Mapping[str, int]) -> str:
    """Say how many files of which kinds there are, the most frequent first."""
    kinds = [f"{number} {kind}" for kind, number in Counter(others).most_common()]
    return first_few(kinds)
