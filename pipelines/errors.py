"""Errors a user can cause or repair: their root, and those raised while building a feature set.

```
UserError                     exit 1
├── SpecError                 exit 2   a clip, feature or split setting that cannot work
├── CatalogError              exit 2   the data as listed cannot be used
├── SplitError                exit 2   the groups do not allow a train, validation and test split
├── AudioRejected                      one file is rejected: code and detail (never ends a build)
├── StoreError                exit 1   a feature set on disk is missing, unfinished or damaged
├── WeightsError              exit 2   trained weights are missing, damaged, or do not fit
├── BuildError                exit 1   too many files were rejected, or a class lost all of them
├── ClusterError              exit 1   Ray cannot be joined or started, or cannot do its work
│   └── ClusterLostError               Ray has died, or no longer answers
├── UnsupportedStorageError   exit 2   the storage is at an address that cannot be used
├── StorageAwayError          exit 1   an object store does not answer, or refuses
├── StorageTakenError         exit 1   another process has taken over what this one was writing
├── StorageFullError          exit 1   no room left at a path
└── ...                                the errors of a study, in ``tuner.errors``
```
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class UserError(Exception):
    """Anything a user can cause or repair; command lines print it without a traceback."""

    exit_code: int = 1


class SpecError(UserError):
    """A clip, feature or split setting that cannot work."""

    exit_code = 2


class CatalogError(UserError):
    """The data as listed cannot be used: no audio, a single class, a faulty manifest."""

    exit_code = 2


class SplitError(UserError):
    """A class has too few groups for a train, validation and test split."""

    exit_code = 2


class AudioRejected(UserError):  # noqa: N818  # a verdict, not a fault of the program
    """One audio file is rejected.

    Attributes:
        code: Reason ``E_...``, as in the table of reason codes.
        detail: Description of what is wrong with this file.
        transient: True if a retry may succeed, whatever the code.
    """

    def __init__(self, code: str, detail: str, transient: bool = False) -> None:
        super().__init__(code, detail, transient)  # all in args, so that pickling keeps them
        self.code = code
        self.detail = detail
        self.transient = transient

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class StoreError(UserError):
    """A feature set on disk is missing, unfinished, damaged or of another version."""


class WeightsError(UserError):
    """Trained weights are missing, unreadable, or do not fit the network."""

    exit_code = 2


class BuildError(UserError):
    """The build stopped because too many files were rejected or a class lost all its files."""


class ClusterError(UserError):
    """Ray cannot be joined or started, or cannot do its work."""


class ClusterLostError(ClusterError):
    """Ray has died, or no longer answers; finished work is kept."""


class UnsupportedStorageError(UserError):
    """The storage is at an address that cannot be used."""

    exit_code = 2

    def __init__(self, address: str, reason: str = "") -> None:
        super().__init__(address, reason)
        self.address, self.reason = address, reason

    def __str__(self) -> str:
        reason = self.reason or "write a folder, or s3://, gs:// or abfs:// with a bucket"
        return f"{self.address}: {reason}"


class StorageAwayError(UserError):
    """An object store does not answer, refuses the keys, or has no such bucket.

    Attributes:
        address: Address of the bucket.
        reason: Why, in a few words.
        has_answered: False if it was asked for the first time.
    """

    def __init__(self, address: str, reason: str, has_answered: bool = True) -> None:
        super().__init__(address, reason, has_answered)
        self.address, self.reason, self.has_answered = address, reason, has_answered

    def __str__(self) -> str:
        advice = (
            "run the same command again when it can be reached: finished work is kept"
            if self.has_answered
            else "correct the address, or the keys in the environment"
        )
        return f"{self.address}: {self.reason}; {advice}"


class StorageTakenError(UserError):
    """Another process has taken over what this one was writing."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address

    def __str__(self) -> str:
        return (
            f"{self.address}: another process has taken it over, because this one was silent for "
            "too long; nothing more is written here, and nothing is lost"
        )


class StorageFullError(UserError):
    """The disk is full, or the quota is used up.

    Attributes:
        path: Path that could not be written.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(str(path))
        self.path = str(path)

    def __str__(self) -> str:
        return (
            f"no room left at {self.path}; free some space there or choose another folder, "
            "then run the same command again: finished work is kept"
        )


def is_storage_full(error: BaseException) -> bool:
    """Return True if an error says that a disk is full or a quota is used up."""
    return isinstance(error, StorageFullError) or (
        isinstance(error, OSError) and error.errno in _NO_ROOM
    )


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turn a full disk or quota, however deep in a chain of errors, into one that names a path.

    Raises:
        StorageFullError: The disk is full or the quota is used up.
    """
    try:
        yield
    except StorageFullError:
        raise
    except BaseException as error:
        if any(is_storage_full(cause) for cause in _causes(error)):
            raise StorageFullError(path) from error
        raise


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
