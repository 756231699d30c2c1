"""Read the tensors of a TensorFlow checkpoint, an index and a data file, without TensorFlow.

The index is a LevelDB table without compression (``table_format.md`` of LevelDB): a footer names
the index block, whose entries name the data blocks. Their entries map the name of a tensor to a
protocol buffer (``tensor_bundle.proto`` of TensorFlow) that says where in the data file it is.
Nothing in the files is trusted. Sizes are compared with the bytes that exist before anything is
allocated, blocks and names must be in order, and all checksums are verified.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import WeightsError

_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # of a block: its compression, and its checksum
# A name may repeat the start of the name before it, so a small file could hold huge names.
_MAX_NAME_BYTES = 1000
_MAX_AXES = 8
_DT_FLOAT = 1


def read_checkpoint(
    index: bytes, data: bytes, wanted: Callable[[str], bool]
) -> dict[str, NDArray[np.float32]]:
    """Read the wanted tensors of a checkpoint that has one data file.

    Args:
        index: Content of the ``.index`` file.
        data: Content of the ``.data-00000-of-00001`` file.
        wanted: Returns True for the names of the tensors to read, which must be float32.

    Raises:
        WeightsError: The files are damaged, truncated, or something else.
    """
    tensors: dict[str, NDArray[np.float32]] = {}
    name = ""
    try:
        for name, entry in _table(index):
            # The entry without a name describes the checkpoint as a whole.
            if name and wanted(name):
                tensors[name] = _tensor(entry, data)
    except (IndexError, ValueError) as error:  # IndexError: a number goes on beyond the end
        place = f"at {name!r}, " if name else ""
        raise WeightsError(f"not a readable TensorFlow checkpoint: {place}{error}") from error
    return tensors


def _tensor(entry: bytes, data: bytes) -> NDArray[np.float32]:
    """Return the tensor that a ``BundleEntryProto`` describes."""
    numbers, messages = _message(entry)
    shape = [_message(axis)[0].get(1, 0) for axis in _messages_of(messages.get(2, b""))]
    start, size = numbers.get(4, 0), numbers.get(5, 0)
    if numbers.get(1) != _DT_FLOAT:
        raise ValueError(f"the type of its numbers is {numbers.get(1)}, not float32")
    if numbers.get(3, 0) != 0 or 7 in messages:
        raise ValueError("its numbers are in several files")
    if len(shape) > _MAX_AXES or 4 * math.prod(shape) != size or start + size > len(data):
        raise ValueError(f"{size} bytes at {start} do not hold the shape {shape}")
    content = data[start : start + size]
    if _masked_crc32c(content) != numbers.get(6):
        raise ValueError("its checksum is wrong")
    values = np.frombuffer(content, "<f4").reshape(shape)
    if not np.isfinite(values).all():
        raise ValueError("its numbers are not finite")
    return values


def _table(index: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the names and entries of a table."""
    if len(index) < _FOOTER_BYTES or not index.endswith(_MAGIC):
        raise ValueError("the index has no LevelDB footer")
    footer = index[-_FOOTER_BYTES:]
    _, after = _handle(footer, 0)  # the block of filters, which is empty
    root, _ = _handle(footer, after)
    end, last = 0, None
    for _, value in _entries(_block(index, root)):
        block, _ = _handle(value, 0)
        if block.start < end:
            raise ValueError("blocks overlap or are out of order")
        end = block.stop
        for name, entry in _entries(_block(index, block)):
            if last is not None and name <= last:
                raise ValueError(f"the name {name!r} is out of order or occurs twice")
            last = name
            yield name.decode(), entry


def _handle(content: bytes, at: int) -> tuple[slice, int]:
    """Read where a block is, and return the offset after that."""
    start, at = _varint(content, at)
    size, at = _varint(content, at)
    return slice(start, start + size), at


def _block(index: bytes, place: slice) -> bytes:
    """Return the entries of a block, without the offsets for a binary search at its end."""
    block, trailer = index[place], index[place.stop : place.stop + _TRAILER_BYTES]
    if len(trailer) < _TRAILER_BYTES:
        raise ValueError("a block ends beyond the index")
    if trailer[0] != 0:
        raise ValueError(f"a block is compressed (type {trailer[0]})")
    if _masked_crc32c(block + trailer[:1]) != int.from_bytes(trailer[1:], "little"):
        raise ValueError("the checksum of a block is wrong")
    end = len(block) - 4 * (1 + int.from_bytes(block[-4:], "little"))
    if end < 0:
        raise ValueError("a block is too short")
    return block[:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the names and values of a block; a name is stored as its difference to the last."""
    name, at = b"", 0
    while at < len(block):
        shared, at = _varint(block, at)
        added, at = _varint(block, at)
        size, at = _varint(block, at)
        if shared > len(name) or shared + added > _MAX_NAME_BYTES:
            raise ValueError("the length of a name is wrong")
        name = name[:shared] + _taken(block, at, added)
        yield name, _taken(block, at + added, size)
        at += added + size


def _message(content: bytes) -> tuple[dict[int, int], dict[int, bytes]]:
    """Return the last number and the last bytes of each field of a protocol buffer."""
    numbers: dict[int, int] = {}
    messages: dict[int, bytes] = {}
    for field, value in _fields(content):
        if isinstance(value, int):
            numbers[field] = value
        else:
            messages[field] = value
    return numbers, messages


def _messages_of(shape: bytes) -> list[bytes]:
    """Return the axes of a ``TensorShapeProto``."""
    return [value for field, value in _fields(shape) if field == 2 and isinstance(value, bytes)]


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the value of each field of a protocol buffer."""
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        field, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = _varint(content, at)
            yield field, value
        elif wire_type == 2:
            size, at = _varint(content, at)
            yield field, _taken(content, at, size)
            at += size
        elif wire_type == 5:
            yield field, int.from_bytes(_taken(content, at, 4), "little")
            at += 4
        else:
            raise ValueError(f"a field has the wire type {wire_type}")


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Read a number, seven bits in each byte, and return the offset after it."""
    value = 0
    for place in range(9):  # a tenth byte would make it negative, or overflow
        byte = content[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number is negative or above 2**63")


def _taken(content: bytes, at: int, size: int) -> bytes:
    if at + size > len(content):
        raise ValueError("an entry is longer than what holds it")
    return content[at : at + size]


def _masked_crc32c(content: bytes) -> int:
    """Return the CRC-32C (Castagnoli), rotated and shifted as LevelDB stores it."""
    crc, table = 0xFFFFFFFF, _CRC_TABLE
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_of_byte(crc: int) -> int:
    for _ in range(8):
        crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc


_CRC_TABLE = tuple(map(_crc_of_byte, range(256)))
