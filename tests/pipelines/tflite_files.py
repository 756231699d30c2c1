"""TFLite files made on the spot by a small writer of flatbuffers; tests change what it writes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

# numbers of the types in the schema of TensorFlow Lite
TYPES = {"float32": 0, "float16": 1, "int32": 2, "int64": 4, "int8": 9}


@dataclass
class Table:
    """Fields by number: an int, a string, bytes, a list of ints, or a list of tables."""

    fields: dict[int, Any]


@dataclass
class Claim:
    """A vector that says another length than it has."""

    value: Any
    length: int


def model(tensors: dict[str, np.ndarray]) -> Table:
    """The tree of a file with some tensors, and one more that an operator would fill."""
    buffers = [Table({}), *(Table({0: values.tobytes()}) for values in tensors.values())]
    rows = [
        Table({0: list(values.shape), 1: TYPES[values.dtype.name], 2: number, 3: name})
        for number, (name, values) in enumerate(tensors.items(), start=1)
    ]
    result = Table({0: [1, 96], 1: 0, 2: 0, 3: "result"})
    return Table({0: 3, 2: [Table({0: [*rows, result]})], 4: buffers})


def write(root: Table) -> bytes:
    """The bytes of a file; parts come after whatever refers to them."""
    out = bytearray(b"\0\0\0\0TFL3")
    struct.pack_into("<I", out, 0, _table(out, root))
    return bytes(out)


def _table(out: bytearray, table: Table) -> int:
    slots = [0] * (max(table.fields, default=-1) + 1)
    for place, field in enumerate(table.fields):
        slots[field] = 4 + 4 * place
    vtable, size = len(out), 4 + 4 * len(table.fields)
    out += struct.pack(f"<{2 + len(slots)}H", 4 + 2 * len(slots), size, *slots)
    _align(out)
    start = len(out)
    out += struct.pack("<i", start - vtable) + bytes(size - 4)
    for field, value in table.fields.items():
        position = start + slots[field]
        if isinstance(value, int):
            struct.pack_into("<I", out, position, value)
        else:
            struct.pack_into("<I", out, position, _vector(out, value) - position)
    return start


def _vector(out: bytearray, value: Any) -> int:
    value, length = (value.value, value.length) if isinstance(value, Claim) else (value, None)
    _align(out)
    start = len(out)
    out += struct.pack("<I", len(value) if length is None else length)
    if isinstance(value, str | bytes):
        out += value.encode() if isinstance(value, str) else value
        _align(out)
    elif value and isinstance(value[0], Table):
        out += bytes(4 * len(value))
        for number, table in enumerate(value):
            position = start + 4 + 4 * number
            struct.pack_into("<I", out, position, _table(out, table) - position)
    else:
        out += struct.pack(f"<{len(value)}i", *value)
    return start


def _align(out: bytearray) -> None:
    out += bytes(-len(out) % 4)
