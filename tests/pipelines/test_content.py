from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.catalog import Catalog, Track, content_digest


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    root = (tmp_path / "data").resolve()
    root.mkdir()
    for name in "ab":
        (root / name).write_bytes(name.encode() * 1000)
    tracks = tuple(Track(name * 16, name, "x", {"artist": "z"}) for name in "ab")
    return Catalog(root, tracks, "manifest", ("artist",))


def test_depends_on_bytes_labels_and_columns(catalog: Catalog) -> None:
    before = content_digest(catalog)
    first, second = catalog.tracks
    assert content_digest(replace(catalog, tracks=(replace(first, label="y"), second))) != before
    other = replace(first, columns={"artist": "q"})
    assert content_digest(replace(catalog, tracks=(other, second))) != before
    (catalog.root / "a").write_bytes(b"A" + b"a" * 999)
    assert content_digest(catalog) != before


def test_does_not_depend_on_order_or_place(catalog: Catalog, tmp_path: Path) -> None:
    before = content_digest(catalog)
    assert content_digest(replace(catalog, tracks=catalog.tracks[::-1])) == before
    catalog.root.rename(tmp_path / "moved")
    assert content_digest(replace(catalog, root=(tmp_path / "moved").resolve())) == before


def test_a_missing_file_counts_as_missing(catalog: Catalog) -> None:
    before = content_digest(catalog)
    (catalog.root / "a").unlink()
    missing = content_digest(catalog)
    assert missing != before
    os.mkfifo(catalog.root / "a")
    assert content_digest(catalog) == missing


def test_unchanged_files_are_not_read_again(catalog: Catalog, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "hashes.json"
    before = content_digest(catalog, cache)
    path = catalog.root / "a"
    status = path.stat()
    path.write_bytes(b"Z" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content_digest(catalog, cache) == before, "same size and time: taken from the cache"
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert content_digest(catalog, cache) != before
    cache.write_text("{broken")
    assert content_digest(catalog, cache) == content_digest(catalog)
