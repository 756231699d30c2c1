"""Work on real Ray workers: order does not matter, deaths do not either."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from pipelines.build.ray_pass import run_all
from pipelines.errors import BuildError, CatalogError, StorageFullError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(120)]


def test_nothing_is_started_for_nothing() -> None:
    assert list(run_all(divmod, [], None)) == []


def test_every_item_is_worked_on_once_though_a_worker_dies(tmp_path: Path) -> None:
    def die_once(item: int, folder: Path) -> int:
        if item == 7 and not (folder / "died").exists():
            while not (folder / "seen").exists():
                time.sleep(0.01)
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item

    found = []
    for result in run_all(die_once, [5, 6, 7, 8, 9, 10], tmp_path):
        found.append(result)
        (tmp_path / "seen").touch()  # what was handed out before a death is not repeated after it
    assert sorted(found) == [(0, 25), (1, 36), (2, 49), (3, 64), (4, 81), (5, 100)]
    assert (tmp_path / "died").exists()


def test_the_items_of_a_worker_that_dies_are_handed_out_at_once(tmp_path: Path) -> None:
    def die_once(item: int, folder: Path) -> int:
        if item == 1 and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)
        return os.getpid()

    found = list(run_all(die_once, range(24), tmp_path))
    numbers = [number for number, _ in found]
    assert sorted(numbers) == list(range(24))
    assert numbers.index(1) < 20  # not in a second pass, after all the others
    assert len({pid for _, pid in found[-6:]}) > 1  # and no processor is idle until then


def test_workers_that_always_die_end_the_build_with_a_word_on_memory() -> None:
    def die(item: int, shared: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(BuildError, match=r"died 3 times.*memory"):
        list(run_all(die, [1], None))


def test_a_full_disk_comes_back_with_its_path() -> None:
    def fill(item: int, shared: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/piece.arrow")

    with pytest.raises(StorageFullError, match=r"/somewhere/piece\.arrow"):
        list(run_all(fill, [1], None))


def test_an_error_that_is_meant_for_the_user_comes_back_as_it_was() -> None:
    def refuse(item: int, shared: object) -> None:
        raise CatalogError("the storage does not answer")

    with pytest.raises(CatalogError, match=r"^the storage does not answer$"):
        list(run_all(refuse, [1], None))
