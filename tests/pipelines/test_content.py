from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash

from pipelines.sources.content import content_digest, digests
from pipelines.sources.tracks import Catalog, Track
from pipelines.storage import Folder

LONG_AGO_NS = 1_600_000_000_000_000_000


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    root = (tmp_path / "data").resolve()
    root.mkdir()
    for name in "ab":
        (root / name).write_bytes(name.encode() * 1000)
        os.utime(root / name, ns=(LONG_AGO_NS, LONG_AGO_NS))
    tracks = tuple(Track(name * 16, name, "x", {"artist": "z"}) for name in "ab")
    return Catalog(str(root), tracks, "manifest", ("artist",))


def total(catalog: Catalog) -> str:
    return content_digest(catalog, digests(catalog))


def test_each_file_has_the_digest_of_its_bytes(catalog: Catalog) -> None:
    expected = {name: xxhash.xxh3_128_hexdigest(name.encode() * 1000) for name in "ab"}
    assert digests(catalog) == expected


@pytest.mark.parametrize(
    "change",
    [{"label": "y"}, {"columns": {"artist": "q"}}, {"start_s": 1.0}, {"end_s": 2.0}],
)
def test_depends_on_all_that_is_listed(catalog: Catalog, change: dict) -> None:
    first, second = catalog.tracks
    assert total(replace(catalog, tracks=(replace(first, **change), second))) != total(catalog)


def test_depends_on_the_bytes(catalog: Catalog) -> None:
    before = total(catalog)
    (Path(catalog.root) / "a").write_bytes(b"A" + b"a" * 999)
    assert total(catalog) != before


def test_does_not_depend_on_order_or_place(catalog: Catalog, tmp_path: Path) -> None:
    before = total(catalog)
    assert total(replace(catalog, tracks=catalog.tracks[::-1])) == before
    Path(catalog.root).rename(tmp_path / "moved")
    assert total(replace(catalog, root=str((tmp_path / "moved").resolve()))) == before


def test_segments_of_one_file_share_its_digest(catalog: Catalog) -> None:
    first, second = catalog.tracks
    halves = (replace(first, end_s=1.0), replace(first, track_id="c" * 16, start_s=1.0), second)
    assert digests(replace(catalog, tracks=halves)) == digests(catalog)
    swapped = (halves[1], halves[0], second)
    assert total(replace(catalog, tracks=swapped)) == total(replace(catalog, tracks=halves))


def test_a_missing_file_counts_as_missing(catalog: Catalog) -> None:
    before = total(catalog)
    (Path(catalog.root) / "a").unlink()
    missing = total(catalog)
    assert missing != before
    os.mkfifo(Path(catalog.root) / "a")
    assert total(catalog) == missing
    assert digests(catalog).keys() == {"b"}


def test_unchanged_files_are_not_read_again(catalog: Catalog, tmp_path: Path) -> None:
    cache = Folder(tmp_path / "cache")
    before = digests(catalog, cache)
    path = Path(catalog.root) / "a"
    path.write_bytes(b"Z" * path.stat().st_size)
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert digests(catalog, cache) == before, "same size and time: taken from the cache"
    seen = digests(catalog, cache, trust_cache=False)
    assert seen["a"] == xxhash.xxh3_128_hexdigest(path.read_bytes())
    assert digests(catalog, cache) == seen, "what was found is in the cache now"
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS + 1))
    path.write_bytes(b"Y" * path.stat().st_size)
    assert digests(catalog, cache)["a"] != seen["a"]


@pytest.mark.parametrize("text", ["{broken", "[]", '{"version": 1}', '{"a": [1, 2, "3"]}'])
def test_a_cache_that_cannot_be_used_costs_time_only(
    catalog: Catalog, tmp_path: Path, text: str
) -> None:
    cache = Folder(tmp_path / "cache")
    before = digests(catalog, cache)
    [name] = cache.names()
    cache.write_text(name, text)
    assert digests(catalog, cache) == before
    assert cache.read_json(name)["hashes"].keys() == {"a", "b"}


def test_a_file_that_was_just_written_is_hashed_once_more(
    catalog: Catalog, tmp_path: Path
) -> None:
    cache = Folder(tmp_path / "cache")
    path = Path(catalog.root) / "a"
    path.write_bytes(b"1" * 1000)
    stamp = path.stat().st_mtime_ns
    before = digests(catalog, cache)
    # written again within a tick of the clock: neither size nor time shows it
    path.write_bytes(b"2" * 1000)
    os.utime(path, ns=(stamp, stamp))
    assert digests(catalog, cache)["a"] != before["a"]


def test_a_link_out_of_the_data_is_not_read(catalog: Catalog, tmp_path: Path) -> None:
    cache = Folder(tmp_path / "cache")
    (tmp_path / "secret").write_bytes(b"s" * 1000)
    os.utime(tmp_path / "secret", ns=(LONG_AGO_NS, LONG_AGO_NS))
    (Path(catalog.root) / "a").unlink()
    (Path(catalog.root) / "a").symlink_to(tmp_path / "secret")
    assert digests(catalog, cache).keys() == {"b"}
