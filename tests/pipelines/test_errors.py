from __future__ import annotations

import errno
import pickle

import pytest

from pipelines.errors import (
    AudioRejected,
    BuildError,
    CatalogError,
    SpecError,
    SplitError,
    StorageFullError,
    StoreError,
    UserError,
    is_storage_full,
)


@pytest.mark.parametrize("error", [AudioRejected("E_EMPTY", "0 bytes"), StorageFullError("/full")])
def test_errors_cross_processes_whole(error: UserError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_exit_codes_are_those_of_the_contract() -> None:
    assert {kind.exit_code for kind in (SpecError, CatalogError, SplitError)} == {2}
    assert {kind.exit_code for kind in (StoreError, BuildError, StorageFullError)} == {1}


def test_full_disk_and_used_up_quota_are_told_from_other_faults() -> None:
    assert is_storage_full(OSError(errno.ENOSPC, "x"))
    assert is_storage_full(OSError(errno.EDQUOT, "x"))
    assert not is_storage_full(OSError(errno.EACCES, "x"))
    assert not is_storage_full(ValueError())
