"""Sony's Wave64, as which files with sizes of 64 bits are given to the decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipelines.containers.content import Content, Part

HEAD = 40  # bytes before the first chunk
COUNTED = 24  # bytes of a chunk's own head, which its size counts
# First bytes of a format chunk that holds the coding further on. libsndfile takes the samples of
# such a W64 file for integers, whatever they are.
EXTENSIBLE = b"\xfe\xff"

# Ends of the names: of the first one, and of those of chunks.
_FIRST_GUID = bytes.fromhex("2e91cf11a5d628db04c10000")
_GUID = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_KEPT = (b"fmt ", b"fact")


def rebuilt(content: Content, chunks: Mapping[bytes, range], samples: Sequence[range]) -> Content:
    """Return an RF64 or W64 file as one of W64, of what its decoder needs.

    Args:
        content: The file.
        chunks: Name of a chunk -> where its content is; others than format and fact are left out.
        samples: Where the samples are.
    """
    pieces: list[Part] = []
    for name in filter(chunks.__contains__, _KEPT):
        body = content.at(chunks[name].start, len(chunks[name]))
        if name == b"fmt " and body.startswith(EXTENSIBLE):
            body = body[24:26] + body[2:16]
        pieces += [_header(name, len(body)), body, bytes(-len(body) % 8)]
    # Nothing behind the samples: libsndfile reads a W64 file to its end.
    pieces += [_header(b"data", sum(map(len, samples))), *samples]
    whole = HEAD + sum(map(len, pieces))
    head = b"riff" + _FIRST_GUID + whole.to_bytes(8, "little") + b"wave" + _GUID
    return content.of([head, *pieces])


def _header(name: bytes, size: int) -> bytes:
    return name + _GUID + (size + COUNTED).to_bytes(8, "little")
