"""Checkpoints as an independent writer makes them, whole and damaged; the real ones are read in
the tests of the networks."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from pipelines.errors import WeightsError
from pipelines.features.networks.tensorflow_bundle import read_checkpoint
from tests.pipelines.checkpoints import Block, Table, checkpoint, entries, varint

RNG = np.random.default_rng(0)
TENSORS: dict[str, np.ndarray] = {
    "conv/bias": RNG.standard_normal(5).astype("f4"),
    "conv/kernel": RNG.standard_normal((3, 2, 1, 5)).astype("f4"),
    "step": np.array(7, "f4"),
}
KERNEL = "conv/kernel"


def everything(name: str) -> bool:
    return True


def made(**changes) -> tuple[bytes, bytes]:
    """A checkpoint in which the kernel's entry has some changes."""
    pairs, data = checkpoint(TENSORS, {KERNEL: changes})
    return bytes(Table([Block(entries(pairs))])), data


def framed(**changes) -> tuple[bytes, bytes]:
    """A checkpoint whose only block, or the table around it, has some changes."""
    pairs, data = checkpoint(TENSORS)
    content = changes.pop("content", entries(pairs))
    of_block = {k: changes.pop(k) for k in ("restarts", "compression", "crc") if k in changes}
    return bytes(Table([Block(content, **of_block)], **changes)), data


def paired(edit: Callable[[list], list]) -> tuple[bytes, bytes]:
    """A checkpoint whose pairs of names and entries are edited."""
    pairs, data = checkpoint(TENSORS)
    return bytes(Table([Block(entries(edit(pairs)))])), data


def test_what_was_written_is_read() -> None:
    pairs, data = checkpoint(TENSORS)
    for blocks in ([pairs], [pairs[:2], pairs[2:]], [[pair] for pair in pairs]):
        index = bytes(Table([Block(entries(some)) for some in blocks]))
        found = read_checkpoint(index, data, everything)
        assert list(found) == sorted(TENSORS)
        for name, values in TENSORS.items():
            np.testing.assert_array_equal(found[name], values, strict=True)


def test_only_wanted_tensors_are_looked_at() -> None:
    index, data = made(dtype=9, size=2**40)
    found = read_checkpoint(index, data, lambda name: name == "step")
    assert {name: values.item() for name, values in found.items()} == {"step": 7.0}


INDEX, DATA = made()
NOT_FINITE = {**TENSORS, KERNEL: np.full((3, 2, 1, 5), np.nan, "f4")}
LONG = b"a" * 900

DAMAGED: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b""),
    "text": (b"model_checkpoint_path: here\n" * 9, DATA),
    "the first half of the index": (INDEX[: len(INDEX) // 2], DATA),
    "the second half of the index": (INDEX[len(INDEX) // 2 :], DATA),
    "half of the data": (INDEX, DATA[: len(DATA) // 2]),
    "no data": (INDEX, b""),
    "a changed number": (INDEX, bytes([DATA[0] ^ 1]) + DATA[1:]),
    "another magic number": framed(magic=0xDB4775248B80FB58),
    "a compressed block": framed(compression=1),
    "a wrong checksum of a block": framed(crc=1),
    "more restart points than bytes": framed(restarts=2**32 - 1),
    "an empty block": (bytes(Table([Block(b"", restarts=2)])), DATA),
    "an index block beyond the file": framed(root=(2**50, 100)),
    "a huge index block": framed(root=(0, 2**62)),
    "a data block beyond the file": framed(handles={0: (2**50, 100)}),
    "a huge data block": framed(handles={0: (0, 2**62)}),
    "the footer as a block": framed(handles={0: (len(INDEX) - 48, 43)}),
    "a block read twice": (
        bytes(Table([Block(entries([(b"a", b"")]))] * 2, handles={1: (0, 13)})),
        DATA,
    ),
    "a handle that is cut off": framed(root_block=Block(entries([(b"a", b"\xff")]))),
    "a name twice": paired(lambda pairs: [*pairs, pairs[-1]]),
    "names out of order": paired(lambda pairs: [pairs[0], *pairs[:0:-1]]),
    "a name that is no text": paired(lambda pairs: [pairs[0], (b"\xff\xfe", pairs[1][1])]),
    "a huge name": paired(lambda pairs: [pairs[0], (b"a" * 2000, pairs[1][1])]),
    "names that grow by sharing": paired(
        lambda pairs: [(LONG, b""), (LONG + b"a" * 200, b""), (LONG + b"b" * 200, b"")]
    ),
    "a name that shares more than there is": framed(content=b"\x05\x01\x00a"),
    "a value beyond its block": framed(content=b"\x00\x01\x7fa"),
    "a length without an end": framed(content=b"\xff" * 20),
    "a length of 2**63": framed(content=b"\x00\x01" + varint(2**63) + b"a"),
    "a shape that is too large": made(shape=(2**40, 2**22)),
    "a shape of too many axes": made(shape=(1,) * 9, size=4),
    "a negative axis": made(shape=(-3, -10)),
    "a shape of nothing": made(shape=(0, 30)),
    "a size that is too large": made(size=2**40, shape=(2**38,)),
    "an offset beyond the data": made(offset=2**50),
    "a negative offset": made(offset=-4),
    "a wrong checksum of a tensor": made(crc=1),
    "float64": made(dtype=2),
    "another data file": made(shard=1),
    "slices": made(extra=b"\x3a\x00"),
    "a field of eight bytes": made(extra=b"\x41" + bytes(8)),
    "a field beyond its entry": made(extra=b"\x12\x7f"),
    "a size that is text": made(extra=b"\x2a\x01a", size=119),
    "numbers that are not finite": (
        bytes(Table([Block(entries(checkpoint(NOT_FINITE)[0]))])),
        checkpoint(NOT_FINITE)[1],
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_and_hostile_files_are_refused_without_much_memory(case: str) -> None:
    index, data = DAMAGED[case]
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match="not a readable TensorFlow checkpoint"):
            read_checkpoint(index, data, everything)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_tensor_is_named_that_is_damaged() -> None:
    index, data = made(dtype=2)
    with pytest.raises(WeightsError, match=r"at 'conv/kernel', .*is 2, not float32"):
        read_checkpoint(index, data, everything)


def test_any_changed_byte_is_noticed_or_has_no_meaning() -> None:
    num_refused = 0
    for at in range(len(INDEX)):
        changed = bytearray(INDEX)
        changed[at] ^= 0x55
        try:
            found = read_checkpoint(bytes(changed), DATA, everything)
        except WeightsError:
            num_refused += 1
            continue
        assert {name: values.tolist() for name, values in found.items()} == {
            name: values.tolist() for name, values in TENSORS.items()
        }
    # all but the place of the filters and the zeros after the handles, in the 48 of the footer
    assert num_refused >= len(INDEX) - 40
