"""The objects of a bucket, as pyarrow's file systems show files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pyarrow.fs import FileInfo, FileSelector, FileType

from pipelines.storage import address, patience

_REQUEST_SECONDS = 60.0
_RETRIES = {"max_retries": 10, "retry_timeout": timedelta(seconds=180)}


class Objects:
    """The part of a pyarrow file system by which audio is read, for `gs://` and `abfs://`.

    pyarrow's own takes no keys of Azure from the environment, and shows no folder in Google's
    buckets that has no object of its own.

    Args:
        place: The bucket, with which all paths begin.
    """

    def __init__(self, place: address.Place) -> None:
        self._bucket = place.bucket
        with _in_words():  # keys that cannot be read are seen here already
            self._client = address.connect(place, _REQUEST_SECONDS, _RETRIES)

    def get_file_info(self, wanted: str | FileSelector) -> Any:
        """Return what there is at a path, or below a folder, as pyarrow does.

        Raises:
            OSError: The store does not answer, in words, the folder is missing, or a name in it
                is none for the client.
        """
        import obstore

        with _in_words():
            if isinstance(wanted, str):
                return self._at(wanted)
            try:
                found = self._below(wanted)
            except obstore.exceptions.InvalidPathError as error:  # the client refuses all then
                reason = f"rename a file: {patience.reason(error)}"
                raise OSError(reason) from None
        if not found and wanted.base_dir != self._bucket:
            raise FileNotFoundError(wanted.base_dir)
        return found

    def open_input_file(self, path: str) -> _Object:
        """Open an object for reading.

        Raises:
            OSError: There is none, or the store does not answer.
        """
        info = self.get_file_info(path)
        if info.type == FileType.NotFound:
            raise FileNotFoundError(path)
        if info.type == FileType.Directory:
            raise OSError(f"{path}: not a regular file")
        return _Object(self._client, self._key(path), info.size)

    def _key(self, path: str) -> str:
        return path[len(self._bucket) + 1 :]

    def _at(self, path: str) -> FileInfo:
        import obstore

        key = self._key(path)
        try:
            return self._info(obstore.head(self._client, key))
        except FileNotFoundError:
            pass
        except obstore.exceptions.PermissionDeniedError:
            # This answer has no body, so it does not say why.
            obstore.get_range(self._client, key, start=0, length=1)
            raise
        is_folder = bool(self._below(FileSelector(path)))
        return FileInfo(path, FileType.Directory if is_folder else FileType.NotFound)

    def _below(self, wanted: FileSelector) -> list[FileInfo]:
        import obstore

        prefix = self._key(wanted.base_dir) or None
        if wanted.recursive:
            pages = obstore.list(self._client, prefix)
            found = [one for page in pages for one in page if one["path"] != prefix]
            # Consoles of stores make an empty object for a folder.
            above = _folders_of(one["path"] for one in found)
            return [self._info(one) for one in found if one["size"] or one["path"] not in above]
        answer = obstore.list_with_delimiter(self._client, prefix)
        folders = (f"{self._bucket}/{one.rstrip('/')}" for one in answer["common_prefixes"])
        files = [self._info(one) for one in answer["objects"] if one["path"] != prefix]
        return files + [FileInfo(one, FileType.Directory) for one in folders]

    def _info(self, meta: Any) -> FileInfo:
        path, size, mtime = f"{self._bucket}/{meta['path']}", meta["size"], meta["last_modified"]
        return FileInfo(path, FileType.File, size=size, mtime=mtime)


def _folders_of(paths: Iterable[str]) -> set[str]:
    found = set[str]()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


@dataclass
class _Object(contextlib.AbstractContextManager["_Object"]):
    _client: Any
    _key: str
    _size: int
    _position: int = 0

    def size(self) -> int:
        return self._size

    def read(self, size: int) -> bytes:
        import obstore

        size = min(size, self._size - self._position)
        if size <= 0:
            return b""
        with _in_words():
            start = self._position
            piece = obstore.get_range(self._client, self._key, start=start, length=size)
        self._position += size
        return bytes(piece)

    def __exit__(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Raise the errors of the client as those of a file system, without its secrets."""
    import obstore

    errors = obstore.exceptions
    try:
        yield
    except (FileNotFoundError, errors.BaseError) as error:
        if patience.is_bucket_gone(error):
            raise OSError("NO_SUCH_BUCKET") from None
        if isinstance(error, FileNotFoundError):
            raise
        kind = ValueError if isinstance(error, errors.InvalidPathError) else OSError
        is_denied = isinstance(error, errors.PermissionDeniedError)
        if is_denied and patience.is_about_object(error):
            kind = PermissionError
        raise kind(patience.reason(error)) from None
