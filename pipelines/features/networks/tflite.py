"""Read the constant tensors of a TFLite file, which is a flatbuffer, without TensorFlow.

Field numbers are those of ``schema.fbs`` of TensorFlow Lite, the layout is that of FlatBuffers'
"Internals". A table starts with the distance back to its vtable, which says where in the table
each field is. Strings and vectors start with their length; a field of these kinds, or of a table,
holds the distance forward to it. Nothing in the file is trusted: all places and lengths are
compared with the bytes that exist, and no array is copied.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import WeightsError

_IDENTIFIER = b"TFL3"
_MODEL_SUBGRAPHS, _MODEL_BUFFERS = 2, 4
_SUBGRAPH_TENSORS = 0
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER, _TENSOR_NAME = 0, 1, 2, 3
_BUFFER_DATA = 0
_TYPES = {0: "<f4", 2: "<i4"}
_MAX_AXES = 8
_SHOWN = 100  # characters of a name in an error


def read_tensors(content: bytes) -> dict[str, NDArray[Any]]:
    """Read all tensors with values: kernels, biases, constants.

    Args:
        content: The file. It must hold a single graph, and values of float32 and int32 only.

    Returns:
        The tensors by name, as read-only views of the file; kernels of two-dimensional
        convolutions are [out, height, width, in].

    Raises:
        WeightsError: The file is damaged, truncated, or something else.
    """
    name = ""
    tensors: dict[str, NDArray[Any]] = {}
    try:
        if content[4:8] != _IDENTIFIER:
            raise ValueError(f"it has {content[4:8]!r} in the place of {_IDENTIFIER!r}")
        file = _Flatbuffer(content)
        model = file.target(0)
        graphs = file.tables(model, _MODEL_SUBGRAPHS)
        buffers = file.tables(model, _MODEL_BUFFERS)
        if len(graphs) != 1:
            raise ValueError(f"it holds {len(graphs)} graphs, not one")
        for tensor in file.tables(graphs[0], _SUBGRAPH_TENSORS):
            name = ""
            number = file.number(tensor, _TENSOR_BUFFER, "<I")
            if number >= len(buffers):
                raise ValueError(f"a tensor has buffer {number} of {len(buffers)}")
            values = file.vector(buffers[number], _BUFFER_DATA, "<u1")
            if not len(values):
                continue  # the result of an operator
            name = file.vector(tensor, _TENSOR_NAME, "<u1").tobytes().decode()
            if name in tensors:
                raise ValueError("the name occurs twice")
            tensors[name] = _shaped(file, tensor, values)
    except ValueError as error:
        place = f"at {name[:_SHOWN]!r}, " if name else ""
        raise WeightsError(f"not a readable TFLite file: {place}{error}") from error
    return tensors


def _shaped(file: _Flatbuffer, tensor: int, values: NDArray[Any]) -> NDArray[Any]:
    """Return the bytes of a tensor as numbers in its shape."""
    kind = file.number(tensor, _TENSOR_TYPE, "<b")
    shape = file.vector(tensor, _TENSOR_SHAPE, "<i4").tolist()
    if kind not in _TYPES:
        raise ValueError(f"the type of its numbers is {kind}, not 0 (float32) or 2 (int32)")
    if len(shape) > _MAX_AXES or min(shape, default=1) < 1 or 4 * math.prod(shape) != len(values):
        raise ValueError(f"{len(values)} bytes do not hold the shape {shape[: _MAX_AXES + 1]}")
    numbers = values.view(_TYPES[kind]).reshape(shape)
    if not np.isfinite(numbers).all():
        raise ValueError("its numbers are not finite")
    return numbers


class _Flatbuffer:
    """The tables and vectors of a flatbuffer; a position is an offset in bytes.

    All vectors together may not be longer than the file. So a small file whose parts overlap
    cannot make the work large.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._unread = len(content)

    def target(self, position: int) -> int:
        """Return where a distance points to."""
        return position + self._unpack(position, "<I")

    def number(self, table: int, field: int, form: str) -> int:
        """Return a field that is a number; a missing one is 0."""
        position = self._field(table, field)
        return 0 if position is None else self._unpack(position, form)

    def vector(self, table: int, field: int, dtype: str) -> NDArray[Any]:
        """Return a field that is a vector of numbers, or a string; a missing one is empty."""
        start, length = self._extent(table, field, np.dtype(dtype).itemsize)
        return np.frombuffer(self._content, dtype, length, start)

    def tables(self, table: int, field: int) -> list[int]:
        """Return the positions of tables in a field that is a vector of them."""
        start, length = self._extent(table, field, 4)
        return [self.target(position) for position in range(start, start + 4 * length, 4)]

    def _extent(self, table: int, field: int, item_bytes: int) -> tuple[int, int]:
        """Return position and length of the content of a vector."""
        position = self._field(table, field)
        if position is None:
            return 0, 0
        start = self.target(position) + 4
        length = self._unpack(start - 4, "<I")
        if start + length * item_bytes > len(self._content):
            raise ValueError(f"{length} items at byte {start} go beyond its end")
        self._unread -= length * item_bytes
        if self._unread < 0:
            raise ValueError("its parts overlap")
        return start, length

    def _field(self, table: int, field: int) -> int | None:
        """Return the position of a field, None if the table lacks it."""
        vtable = table - self._unpack(table, "<i")
        entry = 4 + 2 * field  # after the sizes of vtable and table
        if entry + 2 > self._unpack(vtable, "<H"):
            return None
        offset = self._unpack(vtable + entry, "<H")
        return table + offset if offset else None

    def _unpack(self, position: int, form: str) -> int:
        if not 0 <= position <= len(self._content) - struct.calcsize(form):
            raise ValueError(f"it refers to byte {position} of {len(self._content)}")
        return int(struct.unpack_from(form, self._content, position)[0])
