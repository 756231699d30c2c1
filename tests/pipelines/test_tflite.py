"""TFLite files as an independent writer makes them, whole and damaged; the real one is read in
the tests of the speech embedding."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipelines.errors import WeightsError
from pipelines.features.networks.tflite import read_tensors
from tests.pipelines.tflite_files import Claim, Table, model, write

RNG = np.random.default_rng(0)
TENSORS: dict[str, np.ndarray] = {
    "conv/kernel": RNG.standard_normal((4, 3, 1, 2)).astype("f4"),
    "conv/bias": RNG.standard_normal(4).astype("f4"),
    "pads": np.array([[0, 0], [1, -1]], "i4"),
    "lowest": np.array(-0.4, "f4"),
}
HUGE = 2**31 - 1


def tensor(**fields: Any) -> bytes:
    """A file in which the kernel's row has other fields."""
    root = model(TENSORS)
    numbers = {"shape": 0, "kind": 1, "buffer": 2, "name": 3}
    root.fields[2][0].fields[0][0].fields |= {numbers[k]: v for k, v in fields.items()}
    return write(root)


def holding(values: np.ndarray) -> bytes:
    return write(model({"kernel": values}))


def rooted(**fields: Any) -> bytes:
    """A file whose root has other fields."""
    root = model(TENSORS)
    root.fields |= {{"graphs": 2, "buffers": 4}[k]: v for k, v in fields.items()}
    return write(root)


def patched(form: str, value: int, place: Callable[[bytearray, int], int]) -> bytes:
    """A file with another number at a place, found from the position of the root table."""
    content = bytearray(write(model(TENSORS)))
    struct.pack_into(form, content, place(content, struct.unpack_from("<I", content)[0]), value)
    return bytes(content)


def vtable(content: bytearray, root: int) -> int:
    found: int = root - struct.unpack_from("<i", content, root)[0]
    return found


def cyclic() -> bytes:
    """A file in which the only graph is the root table."""
    graphs = [Table({0: []})]
    content = bytearray(write(Table({2: graphs, 4: [Table({})]})))
    root = struct.unpack_from("<I", content)[0]
    vector = root + 4 + struct.unpack_from("<I", content, root + 4)[0]
    struct.pack_into("<I", content, vector + 4, 2**32 - (vector + 4 - root))
    return bytes(content)


def overlapping() -> bytes:
    """A file in which a thousand tensors have the same megabyte."""
    row = {0: [2**18], 1: 0, 2: 0}
    rows = [Table({**row, 3: f"copy {number}"}) for number in range(1000)]
    return write(Table({2: [Table({0: rows})], 4: [Table({0: bytes(2**20)})]}))


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("model.tflite", write(model(TENSORS)))
    return content.getvalue()


def not_finite(value: float) -> np.ndarray:
    return np.array([1, value], "f4")


WHOLE = write(model(TENSORS))
DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "in the place of b'TFL3'"),
    "a zip": (zipped, "in the place of b'TFL3'"),
    "another identifier": (lambda: WHOLE.replace(b"TFL3", b"TFL2"), "b'TFL2' in the place"),
    "identifier only": (lambda: WHOLE[:8], "refers to byte"),
    "first half": (lambda: WHOLE[: len(WHOLE) // 2], "refers to byte|go beyond"),
    "last bytes missing": (lambda: WHOLE[:-40], "refers to byte|go beyond"),
    "root outside": (
        lambda: patched("<I", 2**32 - 1, lambda c, r: 0),
        "refers to byte 4294967295",
    ),
    "vtable before": (lambda: patched("<i", HUGE, lambda c, r: r), "refers to byte -"),
    "vtable behind": (lambda: patched("<i", -HUGE - 1, lambda c, r: r), "refers to byte 2147"),
    "field outside": (
        lambda: patched("<H", 65532, lambda c, r: vtable(c, r) + 8),
        "refers to byte",
    ),
    "graphs outside": (lambda: patched("<I", HUGE, lambda c, r: r + 8), "refers to byte 2147"),
    "cyclic": (cyclic, "refers to byte 4294"),
    "no graphs": (lambda: rooted(graphs=[]), "0 graphs, not one"),
    "two graphs": (lambda: rooted(graphs=[Table({}), Table({})]), "2 graphs, not one"),
    "no buffers": (lambda: rooted(buffers=[]), "buffer 1 of 0"),
    "number of buffers": (lambda: rooted(buffers=Claim([Table({})], 2**32 - 1)), "go beyond"),
    "length of values": (
        lambda: rooted(buffers=[Table({}), Table({0: Claim(b"1234", HUGE)})]),
        "2147483647 items",
    ),
    "buffer outside": (lambda: tensor(buffer=2**32 - 1), "buffer 4294967295 of 5"),
    "length of a name": (lambda: tensor(name=Claim("kernel", 2**32 - 1)), "go beyond its end"),
    "name no text": (lambda: tensor(name=b"\xff\xfe"), "can't decode"),
    "name twice": (lambda: tensor(name="conv/bias"), "at 'conv/bias', the name occurs twice"),
    "length of a shape": (lambda: tensor(shape=Claim([4], 2**30)), "go beyond its end"),
    "shape of other size": (lambda: tensor(shape=[4, 3, 3, 2]), "96 bytes do not hold the shape"),
    "negative shape": (lambda: tensor(shape=[-4, 3, 1, -2]), r"the shape \[-4, 3, 1, -2\]"),
    "shape with 0": (lambda: tensor(shape=[0, HUGE, HUGE]), r"the shape \[0, 2147483647"),
    "huge shape": (lambda: tensor(shape=[HUGE] * 8), "96 bytes do not hold the shape"),
    "many axes": (lambda: tensor(shape=[4, 3, 1, 2] + [1] * 10_000), "do not hold the shape"),
    "quantised": (lambda: holding(np.zeros(4, "i1")), "numbers is 9, not 0"),
    "half precision": (lambda: holding(np.zeros(4, "f2")), "numbers is 1, not 0"),
    "long integers": (lambda: holding(np.zeros(4, "i8")), "numbers is 4, not 0"),
    "unknown type": (lambda: tensor(kind=99), "at 'conv/kernel', the type of its numbers is 99"),
    "not a number": (lambda: holding(not_finite(np.nan)), "at 'kernel', its numbers are not fin"),
    "infinite": (lambda: holding(not_finite(np.inf)), "its numbers are not finite"),
    "overlapping": (overlapping, "its parts overlap"),
}


def test_what_was_written_is_read() -> None:
    found = read_tensors(WHOLE)
    assert list(found) == list(TENSORS)
    for name, values in TENSORS.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_and_foreign_files_are_rejected(case: str) -> None:
    make, message = DAMAGED[case]
    with pytest.raises(WeightsError, match=f"not a readable TFLite file: .*{message}"):
        read_tensors(make())


def test_files_with_random_damage_are_read_or_rejected() -> None:
    num_rejected = 0
    for _ in range(3000):
        content = bytearray(WHOLE)
        for position in RNG.integers(len(content), size=3):
            content[position] = RNG.integers(256)
        try:
            read_tensors(bytes(content))
        except WeightsError:
            num_rejected += 1
    assert 0 < num_rejected < 3000
