"""The files of a data set, wherever its root is: listing, stamps, safe opening."""

from __future__ import annotations

from pipelines.sources.files.contract import (
    EXTENSIONS,
    EXTRA_EXTENSIONS,
    Files,
    FoundFile,
    Stamp,
    as_stream,
    is_audio_name,
    read_all,
)
from pipelines.sources.files.local import LocalFiles, is_below, locate
from pipelines.sources.files.uri import (
    is_uri,
    local_path,
    printable_file,
    printable_root,
    split_uri,
)

__all__ = [
    "EXTENSIONS",
    "EXTRA_EXTENSIONS",
    "Files",
    "FoundFile",
    "LocalFiles",
    "Stamp",
    "as_stream",
    "files_at",
    "is_audio_name",
    "is_below",
    "is_uri",
    "local_path",
    "locate",
    "printable_file",
    "printable_root",
    "read_all",
    "split_uri",
]


def files_at(root: str) -> Files:
    """Return the files below a root.

    Args:
        root: Folder, or a URI that pyarrow knows: ``s3://bucket/folder``, ``gs://``, ``abfs://``,
            ``file://``.

    Raises:
        CatalogError: The URI is invalid.
    """
    if not is_uri(root):
        return LocalFiles(root)
    if (local := local_path(root)) is not None:
        return LocalFiles(local)
    from pipelines.sources.files.remote import RemoteFiles

    return RemoteFiles.at(root)
