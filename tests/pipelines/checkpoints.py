"""A writer of small TensorFlow checkpoints, after the formats' own descriptions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


def crc32c(content: bytes) -> int:
    """CRC-32C bit by bit (RFC 3720, appendix B.4)."""
    register = 0xFFFFFFFF
    for byte in content:
        for place in range(8):
            bit = (register ^ (byte >> place)) & 1
            register = (register >> 1) ^ (0x82F63B78 * bit)
    return register ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283
assert crc32c(bytes(32)) == 0x8A9136AA


def masked(content: bytes) -> int:
    crc = crc32c(content)
    return ((crc // 2**15) + (crc % 2**15) * 2**17 + 0xA282EAD8) % 2**32


def varint(number: int) -> bytes:
    """Seven bits a byte; a negative number takes ten bytes, as protocol buffers write it."""
    number %= 2**64
    content = b""
    while number > 127:
        content += bytes([number % 128 + 128])
        number //= 128
    return content + bytes([number])


def number_field(number: int, value: int) -> bytes:
    return varint(number * 8) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    return varint(number * 8 + 2) + varint(len(value)) + value


@dataclass(frozen=True)
class Entry:
    """What a bundle says of one tensor; ``extra`` goes behind it."""

    shape: tuple[int, ...]
    offset: int
    size: int
    crc: int
    dtype: int = 1
    shard: int = 0
    extra: bytes = b""

    def __bytes__(self) -> bytes:
        axes = b"".join(bytes_field(2, number_field(1, axis)) for axis in self.shape)
        return (
            number_field(1, self.dtype)
            + bytes_field(2, axes)
            + number_field(3, self.shard)
            + number_field(4, self.offset)
            + number_field(5, self.size)
            + varint(6 * 8 + 5)
            + self.crc.to_bytes(4, "little")
            + self.extra
        )


def entries(pairs: list[tuple[bytes, bytes]], shorten: bool = True) -> bytes:
    """The entries of a block; all names but the first leave out what they share."""
    content, last = b"", b""
    for name, value in pairs:
        shared = 0
        while shorten and shared < min(len(name), len(last)) and name[shared] == last[shared]:
            shared += 1
        content += varint(shared) + varint(len(name) - shared) + varint(len(value))
        content += name[shared:] + value
        last = name
    return content


@dataclass
class Block:
    """A block of a table, with what may be wrong in it."""

    content: bytes
    restarts: int = 1
    compression: int = 0
    crc: int | None = None

    def __bytes__(self) -> bytes:
        body = self.content + (0).to_bytes(4, "little") + self.restarts.to_bytes(4, "little")
        body += bytes([self.compression])
        crc = masked(body) if self.crc is None else self.crc
        return body + crc.to_bytes(4, "little")


@dataclass
class Table:
    """A table of data blocks, with what may be wrong in its frame."""

    blocks: list[Block]
    handles: dict[int, tuple[int, int]] = field(default_factory=dict)
    root: tuple[int, int] | None = None
    root_block: Block | None = None
    magic: int = 0xDB4775248B80FB57

    def __bytes__(self) -> bytes:
        content, pairs = b"", []
        for number, block in enumerate(self.blocks):
            made = bytes(block)
            handle = self.handles.get(number, (len(content), len(made) - 5))
            pairs.append((b"z%d" % number, varint(handle[0]) + varint(handle[1])))
            content += made
        root_block = bytes(self.root_block or Block(entries(pairs, shorten=False)))
        root = self.root or (len(content), len(root_block) - 5)
        handles = varint(0) + varint(0) + varint(root[0]) + varint(root[1])
        footer = handles.ljust(40, b"\0") + self.magic.to_bytes(8, "little")
        return content + root_block + footer


def checkpoint(
    tensors: dict[str, np.ndarray], changes: dict[str, dict[str, Any]] | None = None
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Pairs of an index, the header first, and the data file; ``changes`` are to the entries."""
    header = number_field(1, 1) + bytes_field(3, number_field(1, 1))
    pairs, data = [(b"", header)], b""
    for name in sorted(tensors):
        values = tensors[name]
        content = values.astype("<f4").tobytes()
        entry = Entry(values.shape, len(data), len(content), masked(content))
        pairs.append((name.encode(), bytes(replace(entry, **(changes or {}).get(name, {})))))
        data += content
    return pairs, data
