"""One contract for folders on a disk and in a bucket, and for what each does on its own."""

from __future__ import annotations

import http.client
import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from pipelines.errors import StorageAwayError, StorageTakenError, UnsupportedStorageError
from pipelines.storage import (
    BUILDING,
    Folder,
    address,
    found,
    lease,
    node_cache,
    objects,
    patience,
    segments,
)  # fmt: skip
from pipelines.storage.address import Place
from pipelines.storage.bucket import Bucket
from pipelines.storage.objects import Objects
from tests.object_store import BUCKET, Proxy, s3_server, variables
from tests.other_stores import account, azure_server, connection_string, google_server

# Scheme -> its server, and the variables by which a store at an address is found.
STORES: dict[str, tuple[Callable[[], Any], Callable[[str], dict[str, str]]]] = {
    "s3": (s3_server, variables),
    "gs": (google_server, lambda address: {"STORAGE_EMULATOR_HOST": address}),
    "abfs": (
        azure_server,
        lambda address: {"AZURE_STORAGE_CONNECTION_STRING": connection_string(address)},
    ),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run all that needs a bucket with each store; what takes long, or node, in the slow tests."""
    if "server" not in metafunc.fixturenames:
        return
    is_contract = metafunc.cls is TestContract
    slow = pytest.mark.slow
    stores = [
        *(["disk"] if is_contract else []),
        pytest.param("s3", id="bucket") if is_contract else "s3",
        pytest.param("gs", marks=[] if is_contract else slow),
        pytest.param("abfs", marks=slow),
    ]
    metafunc.parametrize("server", stores, indirect=True, scope="module")


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Scheme and address of a store."""
    if request.param == "disk":
        yield "disk", ""
    else:
        with STORES[request.param][0]() as address:
            yield request.param, address


@pytest.fixture
def proxy(server: tuple[str, str]) -> Iterator[Proxy]:
    found = Proxy(server[1])
    yield found
    found.close()


@pytest.fixture
def bucket(
    server: tuple[str, str],
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Folder:
    scheme, _ = server
    for name, value in STORES[scheme][1](proxy.address).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    Objects.at.cache_clear()  # no two tests share a connection
    address = f"{scheme}://{BUCKET}/my tests/{request.node.name}"
    if scheme == "s3":
        address += f"?endpoint_override={proxy.address.removeprefix('http://')}&scheme=http"
    return Folder.at(address)


@pytest.fixture
def folder(server: tuple[str, str], request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if server[0] == "disk":
        return Folder.at(tmp_path / "folder")
    found: Folder = request.getfixturevalue("bucket")
    return found


def _other(bucket: Folder) -> Bucket:
    """Return the same folder of a bucket that does not exist."""
    assert isinstance(bucket, Bucket)
    return replace(bucket, place=replace(bucket.place, bucket="other"))


def _gone_after(last: int, _method: str, _path: str, number: int) -> str | None:
    return "reset" if number >= last else None


class TestContract:
    def test_files_come_back_as_they_were_written(self, folder: Folder) -> None:
        inner = folder / "a" / "b"
        assert not inner.exists()
        assert not folder.exists()
        inner.write_json("x.json", {"genre": "Electrónica"})
        inner.write_text("ü y.txt", "one\n")
        inner.write_text("ü y.txt", "two\n")
        assert inner.read_json("x.json") == {"genre": "Electrónica"}
        assert inner.read_bytes("ü y.txt") == b"two\n"
        assert inner.names() == inner.files() == ["x.json", "ü y.txt"]
        assert inner.names("*.json") == ["x.json"]
        assert folder.names() == (folder / "a").parent.names() == ["a"]
        assert folder.files() == []
        assert inner.exists()
        assert inner.exists("x.json")
        assert not inner.exists("x")

    def test_odd_names_come_back(self, folder: Folder) -> None:
        names = [
            "#1", "100%.txt", "<a>&amp;", "[x]*", "a%20b", "a?b=c&d", "dot.", "e\u0301",
            "it's + you", 'say "hi"', "semi;colon,@=$!", "space ", "~a", "\u00e9", "é\U0001f3b5",
        ]  # fmt: skip
        if "abfs://" not in str(folder):  # Azure makes a slash of it
            names = sorted([*names, "back\\slash"])
        for name in names:
            (folder / name).write_text(name, name)
            folder.write_text(f"files/{name}", name)
        assert folder.names() == sorted([*names, "files"])
        assert (folder / "files").names() == (folder / "files").files() == names
        for name in names:
            assert (folder / name).read_text(name) == name
            assert Folder.at((folder / name).address).names() == [name]
            assert folder.file(f"files/{name}").read_text() == name
        folder.remove("files")
        assert folder.names() == names

    def test_a_missing_file_is_an_os_error(self, folder: Folder) -> None:
        for read in (folder.read_bytes, folder.read_json, folder.file, folder.version):
            with pytest.raises(FileNotFoundError):
                read("none")
        assert folder.log_bytes("none") is None
        assert folder.names() == folder.files() == []
        folder.remove("none")
        folder.remove()

    def test_a_file_that_is_too_large_is_not_read(self, folder: Folder, monkeypatch) -> None:
        from pipelines import regular_files

        monkeypatch.setitem(regular_files.MAX_BYTES, "trial.json", 10)
        folder.write_bytes("trial.json", bytes(11))
        with pytest.raises(OSError, match="11 bytes are more than the 10"):
            folder.read_bytes("trial.json")

    def test_a_file_is_written_at_a_path(self, folder: Folder) -> None:
        with folder.writing("deep/x.bin") as path:
            path.write_bytes(b"x" * 12_000_000)  # more than one part of an upload
            assert not folder.exists("deep/x.bin")
        assert folder.file("deep/x.bin").read_bytes() == b"x" * 12_000_000
        with suppress(ZeroDivisionError), folder.writing("deep/x.bin") as path:
            path.write_bytes(b"half")
            raise ZeroDivisionError
        assert len(folder.read_bytes("deep/x.bin")) == 12_000_000

    def test_a_version_changes_with_the_content(self, folder: Folder) -> None:
        folder.write_text("x", "one")
        first = folder.version("x")
        folder.write_text("x", "two")
        assert folder.version("x") == folder.version("x") != first
        folder.write_text("x", "one")
        # Azure gives each write a version of its own.
        assert (folder.version("x") == first) is ("abfs://" not in str(folder))

    def test_a_folder_appears_complete_or_not_at_all(self, folder: Folder) -> None:
        with folder.building("set") as scratch:
            (scratch / "deep").mkdir()
            (scratch / "deep" / "a").write_text("1")
            (scratch / "b").write_text("2")
            assert not folder.exists("set")
        assert (folder / "set" / "deep").read_text("a") == "1"
        with folder.building("set") as scratch:
            (scratch / "b").write_text("3")
        assert (folder / "set").names() == ["b"]
        with suppress(ZeroDivisionError), folder.building("set") as scratch:
            (scratch / "b").write_text("4")
            raise ZeroDivisionError
        with pytest.raises(OSError, match="not empty"), folder.building("set", False):
            pass
        assert (folder / "set").read_text("b") == "3"
        local = folder.local("set")
        assert [path.read_text() for path in local.iterdir()] == ["3"]
        assert local.name == "set"
        assert folder.names() == ["set"]

    def test_what_is_removed_is_gone(self, folder: Folder) -> None:
        for name in ("one", "set/a", "set/deep/b", "set2/c"):
            folder.write_text(name, name)
        folder.remove("set")
        folder.remove("one")
        assert folder.names() == ["set2"]
        folder.remove()
        assert not folder.exists()

    def test_a_log_grows_and_is_read_whole(self, folder: Folder) -> None:
        log = folder.open_log("ledger.jsonl")
        log.truncate(0)
        lines = [b"%05d " % number + b"x" * number + b"\n" for number in range(80)]
        for line in lines:
            log.append(line)
        log.close()
        assert folder.log_bytes("ledger.jsonl") == b"".join(lines)
        assert (folder.log_bytes("ledger.jsonl", first=True) or b"").startswith(lines[0])
        assert folder.files() == ["ledger.jsonl"]
        assert folder.file("ledger.jsonl").read_bytes() == b"".join(lines)
        log = folder.open_log("ledger.jsonl")
        log.truncate(len(b"".join(lines)))
        log.append(b"last\n")
        assert folder.log_bytes("ledger.jsonl") == b"".join([*lines, b"last\n"])

    def test_a_log_loses_its_torn_end(self, folder: Folder) -> None:
        log = folder.open_log("ledger.jsonl")
        log.append(b"one\ntw")
        log.close()
        log = folder.open_log("ledger.jsonl")
        log.truncate(4)
        log.append(b"two\n")
        assert folder.log_bytes("ledger.jsonl") == b"one\ntwo\n"

    def test_a_lock_is_held_by_one(self, folder: Folder, monkeypatch) -> None:
        monkeypatch.setattr(lease, "RENEW_SECONDS", 0.3)
        monkeypatch.setattr(lease, "LOOK_SECONDS", 0.05)
        with folder.lock("x.lock"):
            with pytest.raises(TimeoutError, match="held by"), folder.lock("x.lock", 0.0):
                pass
            waited = threading.Thread(target=self._lock_and_leave, args=(folder,))
            waited.start()
            waited.join(0.5)
            assert waited.is_alive()
        waited.join(5)
        assert not waited.is_alive()
        assert folder.read_text("done") == "yes"

    @staticmethod
    def _lock_and_leave(folder: Folder) -> None:
        with folder.lock("x.lock"):
            folder.write_text("done", "yes")

    def test_a_folder_travels_to_other_processes(self, folder: Folder) -> None:
        folder.write_text("x", "1")
        assert pickle.loads(pickle.dumps(folder)).read_text("x") == "1"
        again = Folder.at(folder.address)
        assert again == folder.resolved()
        assert again.read_text("x") == "1"
        assert Folder.at(str(folder / "deep")).parent == again


class TestBucket:
    def test_an_address_comes_back(self) -> None:
        for given in (
            "s3://b/my studies/ü", "gs://b/x", "abfs://box@acc.dfs.core.windows.net/x", "s3://b",
            "s3://b/x?endpoint_override=h:9000&region=eu-1&scheme=http",
        ):  # fmt: skip
            found = Folder.at(given)
            assert isinstance(found, Bucket)
            assert str(found).replace("%C3%BC", "ü") == given
            assert Folder.at(str(found / "name")) == found / "name"
        assert str(Folder.at("s3://b/x/?region=r") / "y") == "s3://b/x/y?region=r"

    @pytest.mark.parametrize(
        ("given", "found"),
        [
            ("DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=aw==;"
             "EndpointSuffix=core.chinacloudapi.cn",
             ["acc", "https://acc.blob.core.chinacloudapi.cn", "aw==", None]),
            ("AccountName=acc;AccountKey=aw==",
             ["acc", "https://acc.blob.core.windows.net", "aw==", None]),
            ("BlobEndpoint=https://acc.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=a%3D",
             ["acc", "https://acc.blob.core.windows.net", None, "sv=1&sig=a%3D"]),
            ("AccountName=other;AccountKey=aw==", ["acc", None, None, None]),
        ],
    )  # fmt: skip
    def test_a_connection_string_of_azure_names_the_account(
        self, given: str, found: list[str | None], monkeypatch
    ) -> None:
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", given)
        place = Place("abfs", "box", "acc.dfs.core.windows.net")
        for one in (place, *([replace(place, host="")] if found[1] else [])):
            config = address.connect(one, 5.0).config
            parts = ("account_name", "endpoint", "account_key", "sas_key")
            assert [config.get(name) for name in parts] == found

    def test_a_store_is_found_by_other_variables(
        self, bucket: Folder, server: tuple[str, str], proxy: Proxy, monkeypatch
    ) -> None:
        other = {
            "s3": {"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": proxy.address},
            "gs": {"STORAGE_EMULATOR_HOST": proxy.address.removeprefix("http://")},
            "abfs": account(proxy.address) | {"AZURE_STORAGE_CONNECTION_STRING": ""},
        }
        for name, value in other[server[0]].items():
            monkeypatch.setenv(name, value)
        Objects.at.cache_clear()
        bucket.check(writes=True)
        bucket.write_text("x", "1")
        assert Folder.at(str(bucket).partition("?")[0]).read_text("x") == "1"

    @pytest.mark.parametrize("scheme", ["abfs", "gs"])
    def test_missing_keys_are_named(self, scheme: str, monkeypatch) -> None:
        for name in list(os.environ):
            if name.startswith(("AZURE_", "GOOGLE_", "STORAGE_")):
                monkeypatch.delenv(name)
        known = {"abfs": "AZURE_STORAGE_ACCOUNT_NAME", "gs": "GOOGLE_APPLICATION_CREDENTIALS"}
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # or a machine's role would answer
        objects = Objects(Place(scheme, "box")).patient_for(0.0)
        with pytest.raises(StorageAwayError, match=known[scheme]):
            objects.find("x")

    def test_what_a_killed_process_was_uploading_is_not_there(self, bucket: Folder) -> None:
        (bucket / "t").write_text(f"{BUILDING}epoch-0002", "")
        (bucket / "t").write_text("epoch-0002/weights", "half")
        (bucket / "t").write_text("epoch-0001/weights", "whole")
        assert (bucket / "t").names() == ["epoch-0001"]
        assert not (bucket / "t").exists("epoch-0002")
        bucket.remove_scratch()
        assert not (bucket / "t" / "epoch-0002").exists("weights")
        with (bucket / "t").building("epoch-0002") as scratch:
            (scratch / "weights").write_text("whole")
        assert (bucket / "t").names() == ["epoch-0001", "epoch-0002"]

    def test_a_copy_is_fetched_once(self, bucket: Folder, proxy: Proxy) -> None:
        bucket.write_bytes("part", bytes(1000))
        first = bucket.file("part")
        proxy.requests.clear()
        assert bucket.file("part") == first
        assert [method for method, _ in proxy.requests] == ["HEAD"]
        bucket.write_bytes("part", bytes(1001))
        assert bucket.file("part").stat().st_size == 1001

    @pytest.mark.parametrize(("seconds", "left"), [(60.0, 12), (0.0, 9)])
    def test_copies_that_were_read_long_ago_make_room(
        self, bucket: Folder, tmp_path: Path, seconds: float, left: int, monkeypatch
    ) -> None:
        """Twelve copies of 0.1 MB, a limit of 0.5 MB, and a process that lives on."""
        monkeypatch.setenv("TUNER_CACHE_GB", "0.0005")
        monkeypatch.setattr(node_cache, "_HELD_SECONDS", seconds)
        for number in range(12):
            bucket.write_bytes(str(number), bytes(100_000))
            assert bucket.file(str(number)).stat().st_size == 100_000
        assert len([*(tmp_path / "cache" / "copies").glob("[!.]*/*")]) == left

    @pytest.mark.parametrize("new", [b"new" * 100, b"short", None])
    @pytest.mark.parametrize("way", ["file", "opened", "local"])
    def test_pieces_of_two_versions_are_never_mixed(
        self, bucket: Folder, proxy: Proxy, way: str, new: bytes | None, monkeypatch
    ) -> None:
        """A file is replaced or removed between two of its pieces."""
        for module in (found, objects):
            monkeypatch.setattr(module, "PIECE_BYTES", 100)
        bucket.write_bytes("set/a", bytes(300))
        bucket.write_bytes("set/b", b"other")
        pieces = list[str]()

        def replaced(method: str, path: str, _: int) -> None:
            if method != "GET" or "/a" not in unquote(path):
                return
            pieces.append(path)
            if len(pieces) == 2 and new is not None:
                bucket.write_bytes("set/a", new)
                bucket.write_bytes("set/b", b"newer")  # it may have been fetched already
            elif len(pieces) == 2:
                bucket.remove("set/a")

        def read() -> bytes | None:
            if way == "local":
                copy = bucket.local("set")
                assert (copy / "b").read_bytes() == (b"newer" if new else b"other")
                return (copy / "a").read_bytes() if (copy / "a").exists() else None
            if way == "file":
                return bucket.file("set/a").read_bytes()
            with bucket.opened("set/a") as copy:
                return copy.read_bytes()

        proxy.trouble = replaced
        if new is None and way != "local":
            with pytest.raises(FileNotFoundError):
                read()
        else:
            assert read() == new
            assert read() == new
        assert len(pieces) >= 2

    def test_an_object_that_never_rests_is_no_outage(
        self, bucket: Folder, proxy: Proxy, monkeypatch
    ) -> None:
        number = iter(range(1000))
        bucket.write_bytes("x", b"first")
        proxy.trouble = lambda method, *_: (
            bucket.write_bytes("x", b"%d" % next(number)) if method == "GET" else None
        )
        with pytest.raises(OSError, match="it changes too fast to be read"):
            bucket.file("x")

    @pytest.mark.parametrize("trouble", [None, "replaced", "removed", "refused"])
    def test_what_lies_in_the_store_is_not_uploaded_again(
        self, bucket: Folder, proxy: Proxy, trouble: str | None
    ) -> None:
        """A folder with a link to a copy is whole, also where the store cannot copy any more."""
        part = bytes(range(250)) * 4000
        bucket.write_bytes("old/part", part)
        with bucket.building("new") as scratch:
            os.link(bucket.file("old/part"), scratch / "part")
            (scratch / "more").write_bytes(b"more")
            if trouble == "replaced":
                bucket.write_bytes("old/part", b"else")
            if trouble == "removed":
                bucket.remove("old/part")
            if trouble == "refused":
                proxy.copies = False
            proxy.uploaded.clear()
        is_copied = trouble is None and "abfs://" not in str(bucket)
        assert (proxy.uploaded.total() < 1000) is is_copied
        assert (bucket / "new").read_bytes("part") == part
        assert (bucket / "new").names() == ["more", "part"]

    @pytest.mark.parametrize("trouble", [500, 503, 429, "reset", "cut", "lost"])
    def test_trouble_that_passes_is_not_noticed(
        self, bucket: Folder, proxy: Proxy, trouble: int | str
    ) -> None:
        """Every third request fails, each in its turn."""
        proxy.trouble = lambda method, path, number: trouble if number % 3 == 1 else None
        TestContract().test_a_log_loses_its_torn_end(bucket)
        bucket.write_bytes("x", bytes(3_000_000))
        assert bucket.file("x").read_bytes() == bytes(3_000_000)
        assert bucket.read_bytes("x") == bytes(3_000_000)
        bucket.remove("x")
        assert bucket.names() == ["ledger.jsonl"]

    def test_a_store_that_stays_away_is_named(
        self, bucket: Folder, proxy: Proxy, capsys, monkeypatch
    ) -> None:
        monkeypatch.setattr(patience, "QUIET_SECONDS", 0.0)
        assert isinstance(bucket, Bucket)
        objects = bucket._objects.patient_for(1.0)
        proxy.trouble = lambda *_: 503
        with pytest.raises(StorageAwayError, match="it asks for fewer requests; run the same"):
            objects.put("x", b"")
        proxy.trouble = lambda *_: "reset"
        with pytest.raises(StorageAwayError, match=f"://{BUCKET}.*it does not answer"):
            objects.put("x", b"")
        assert "trying again, for at most" in capsys.readouterr().err

    def test_a_bucket_that_is_gone_is_no_missing_file(self, bucket: Folder) -> None:
        with pytest.raises(StorageAwayError, match="there is no such"):
            _other(bucket)._objects.patient_for(0.5).get("x")

    @pytest.mark.parametrize("conditions", ["refused", "ignored"])
    def test_a_store_without_conditions_is_used_and_named(
        self, bucket: Folder, proxy: Proxy, conditions: str, capsys
    ) -> None:
        if "abfs://" in str(bucket):
            pytest.skip("Azure signs the conditions, and has always kept them")
        proxy.conditions = conditions
        bucket.check(writes=True)
        assert ("ignores the conditions" in capsys.readouterr().err) is (conditions == "ignored")
        TestContract().test_a_log_loses_its_torn_end(bucket)
        with bucket.lock("x.lock"):
            assert bucket.read_json("x.lock")["epoch"] == 1
        with bucket.lock("x.lock"):
            assert bucket.read_json("x.lock")["epoch"] == 2


class TestLease:
    @pytest.fixture(autouse=True)
    def _fast(self, monkeypatch) -> None:
        monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)
        monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)
        monkeypatch.setattr(lease, "LOOK_SECONDS", 0.05)

    def test_that_of_a_dead_process_runs_out(self, bucket: Folder) -> None:
        bucket.write_text("x.lock", '{"epoch": 7, "holder": "process 1 on gone", "renewals": 3}')
        began = time.monotonic()
        with bucket.lock("x.lock", 0.0):
            assert 1.0 <= time.monotonic() - began < 5.0
            assert bucket.read_json("x.lock")["epoch"] == 8

    def test_a_living_holder_is_told_at_once(self, bucket: Folder) -> None:
        with (
            bucket.lock("x.lock"),
            pytest.raises(TimeoutError, match=r"held by process \d+ on "),
            bucket.lock("x.lock", 0.0),
        ):
            pass

    def test_many_take_turns(self, bucket: Folder) -> None:
        inside, most = [0], [0]

        def work() -> None:
            with bucket.lock("x.lock"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.05)
                inside[0] -= 1

        threads = [threading.Thread(target=work) for _ in range(5)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(30)
        assert most == [1]
        assert bucket.read_json("x.lock")["holder"] == ""

    def test_a_holder_that_lost_it_is_told(self, bucket: Folder, monkeypatch) -> None:
        """Also one that was frozen: its thread may not have looked yet."""
        monkeypatch.setattr(lease, "RENEW_SECONDS", 60.0)
        taken = '{"epoch": 9, "holder": "process 2 on other", "renewals": 0}'
        with bucket.lock("x.lock") as check:
            monkeypatch.setattr(lease, "RENEW_SECONDS", 0.0)
            check()
            bucket.write_text("x.lock", taken)
            with pytest.raises(StorageTakenError, match="another process has taken it over"):
                check()
        assert bucket.read_text("x.lock") == taken

    def test_a_folder_whose_lock_is_lost_does_not_appear(self, bucket: Folder) -> None:
        with bucket.building("set") as scratch:
            (scratch / "a").write_text("old")
        with pytest.raises(StorageTakenError):
            self._build_too_late(bucket)
        assert (bucket / "set").names() == ["a"]

    @staticmethod
    def _build_too_late(bucket: Folder) -> None:
        with bucket.lock("x.lock") as check, bucket.building("set", check=check) as scratch:
            (scratch / "b").write_text("new")
            bucket.write_text("x.lock", "{}")
            time.sleep(0.5)


class TestSegments:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch) -> None:
        monkeypatch.setattr(segments, "FOLD_SEGMENTS", 4)
        monkeypatch.setattr(segments, "SEALED_BYTES", 60)

    def test_a_writer_that_was_thought_dead_is_told(self, bucket: Folder) -> None:
        """Whatever the new writer has folded since."""
        old = bucket.open_log("log.jsonl")
        for number in range(5):
            old.append(b"old %d\n" % number)
        new = bucket.open_log("log.jsonl")
        for number in range(3 * segments.FOLD_SEGMENTS):
            new.append(b"new %d\n" % number)
        for _ in range(2):
            with pytest.raises(StorageTakenError, match="another process has taken it over"):
                old.append(b"old too\n")
        lines = (bucket.log_bytes("log.jsonl") or b"").splitlines()
        assert lines[:5] == [b"old %d" % number for number in range(5)]
        assert lines[5:] == [b"new %d" % number for number in range(3 * segments.FOLD_SEGMENTS)]

    def test_records_of_another_writer_are_not_cut_off(self, bucket: Folder) -> None:
        bucket.open_log("log.jsonl").append(b"one\n")
        late = bucket.open_log("log.jsonl")
        late.append(b"two\n")
        with pytest.raises(StorageTakenError):
            bucket.open_log("log.jsonl").truncate(4)
        assert bucket.log_bytes("log.jsonl") == b"one\ntwo\n"

    def test_a_missing_segment_is_an_error(self, bucket: Folder) -> None:
        log = bucket.open_log("log.jsonl")
        for number in range(3):
            log.append(b"%d\n" % number)
        bucket.remove("log.jsonl/000000000000002")
        with pytest.raises(OSError, match="the segment before it, at byte 2, is missing"):
            bucket.log_bytes("log.jsonl")

    def test_a_reader_sees_whole_lines_while_segments_are_folded(self, bucket: Folder) -> None:
        stop, read = threading.Event(), list[bytes]()

        def look() -> None:
            while not stop.is_set():
                read.append(bucket.log_bytes("log.jsonl") or b"")

        threads = [threading.Thread(target=look) for _ in range(3)]
        for one in threads:
            one.start()
        log = bucket.open_log("log.jsonl")
        lines = [b"line %d\n" % number for number in range(60)]
        for line in lines:
            log.append(line)
        stop.set()
        for one in threads:
            one.join(30)
        whole = b"".join(lines)
        assert len(read) > 5
        assert all(whole.startswith(one) and one.endswith((b"\n", b"")) for one in read)
        assert bucket.log_bytes("log.jsonl") == whole

    def test_every_place_where_a_writer_can_die(
        self, bucket: Folder, proxy: Proxy, quick: None
    ) -> None:
        """The log is whole after every prefix of a writer's requests, and goes on from there."""
        lines = [b"line %d\n" % number for number in range(11)]

        def write(folder: Folder, done: list[bytes]) -> None:
            log = folder.open_log("log")
            log.truncate(len(b"".join(done)))
            for line in lines[len(done) :]:
                log.append(line)
                done.append(line)

        deaths = 0
        for folder in self._dying(bucket, proxy):
            done: list[bytes] = []
            with suppress(StorageAwayError):
                write(folder, done)
                break
            deaths += 1
            proxy.trouble = lambda *_: None
            found = (folder.log_bytes("log") or b"").splitlines(keepends=True)
            assert found[: len(done)] == done
            assert found == lines[: len(found)]
            write(folder, found)
            assert folder.log_bytes("log") == b"".join(lines)
        assert deaths > len(lines)

    @pytest.fixture
    def quick(self, monkeypatch) -> None:
        """Let the client give up at once."""
        monkeypatch.setattr(address, "_RETRIES", {**address._RETRIES, "max_retries": 0})
        monkeypatch.setattr(segments, "_TAKE_BACK_SECONDS", 0.0)

    @pytest.mark.parametrize("is_new", [True, False])
    def test_every_place_where_an_upload_can_die(
        self, bucket: Folder, proxy: Proxy, is_new: bool, quick: None
    ) -> None:
        def build(folder: Folder, text: str) -> None:
            with folder.building("set") as scratch:
                for name in ("a", "b", "c"):
                    (scratch / f"{text}-{name}").write_text(text)

        deaths = 0
        for folder in self._dying(bucket, proxy, before=None if is_new else build):
            with suppress(StorageAwayError):
                build(folder, "new")
                break
            deaths += 1
            proxy.trouble = lambda *_: None
            if folder.exists("set"):
                assert (folder / "set").names() in (
                    ["new-a", "new-b", "new-c"],
                    ["old-a", "old-b", "old-c"],
                )
            assert folder.names() in (["set"], [])
            folder.remove_scratch()
            build(folder, "new")
            assert (folder / "set").names() == ["new-a", "new-b", "new-c"]
        assert deaths >= 5

    @staticmethod
    def _dying(
        bucket: Folder,
        proxy: Proxy,
        before: Callable[[Folder, str], None] | None = None,
    ) -> Iterator[Folder]:
        """Yield a new folder each time, whose store is gone after one request more."""
        assert isinstance(bucket, Bucket)
        before_it, bucket._objects.patience_seconds = bucket._objects.patience_seconds, 0.0
        try:
            for last in range(200):
                proxy.trouble = lambda *_: None
                folder = bucket / str(last)
                if before:
                    before(folder, "old")
                proxy.requests.clear()
                proxy.trouble = partial(_gone_after, last)
                yield folder
        finally:
            bucket._objects.patience_seconds = before_it
            proxy.trouble = lambda *_: None


class TestFaults:
    """What reviews have found."""

    def test_a_folder_goes_whole_from_a_store_that_deletes_one_by_one(self) -> None:
        """As those of Google and Azure, which answer 404 for a key that is missing."""
        with tempfile.TemporaryDirectory() as name:
            from obstore.store import LocalStore

            objects = Objects(Place("gs", "b"), lambda *_: LocalStore(name))
            for number in range(40):
                objects.put(f"set/{number}", b"")
            objects.delete(["set/gone", *(f"set/{number}" for number in range(40))])
            assert objects.below("") == []

    def test_a_bucket_that_is_gone_is_not_taken_over(self, bucket: Folder) -> None:
        with pytest.raises(StorageAwayError, match="there is no such"):
            _other(bucket)._objects.patient_for(0.5).put_if("x", b"", None)

    def test_a_signal_during_an_append_leaves_the_log_as_it_was(
        self, bucket: Folder, proxy: Proxy, monkeypatch
    ) -> None:
        log = bucket.open_log("log.jsonl")
        log.append(b"one\n")
        put_if = Objects.put_if

        def interrupted(*args: Any) -> None:
            put_if(*args)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Objects, "put_if", interrupted)
            with pytest.raises(KeyboardInterrupt):
                log.append(b"two\n")
        log.append(b"end\n")
        assert bucket.log_bytes("log.jsonl") == b"one\nend\n"

    def test_a_renewal_whose_answer_is_lost_does_not_lose_the_lease(
        self, bucket: Folder, proxy: Proxy, monkeypatch
    ) -> None:
        monkeypatch.setattr(lease, "RENEW_SECONDS", 1.2)
        monkeypatch.setattr(lease, "LOOK_SECONDS", 0.05)
        with bucket.lock("x.lock"):
            proxy.trouble = lambda verb, *_: "lost" if verb == "PUT" else None
            time.sleep(2.0)
            proxy.trouble = lambda *_: None
            time.sleep(1.5)
        assert bucket.read_json("x.lock")["holder"] == ""

    def test_keys_of_somebody_else_do_no_harm(self, bucket: Folder, proxy: Proxy) -> None:
        bucket.open_log("log.jsonl").append(b"one\n")
        bucket.write_bytes("log.jsonl/.DS_Store", b"x")
        assert isinstance(bucket, Bucket)
        if bucket.place.scheme != "abfs":  # whose server wants a signature
            connection = http.client.HTTPConnection(proxy.address.removeprefix("http://"))
            connection.request("PUT", f"/{BUCKET}/{quote(bucket._key('log.jsonl'))}/", b"")
            assert connection.getresponse().status == 200
        assert bucket.log_bytes("log.jsonl") == b"one\n"
        assert (bucket / "log.jsonl").names() == ["000000000000000"]

    @pytest.mark.parametrize(
        "address",
        ["s3://b/x#1", "s3://b/x?endpoint_override=http://u:pw@h", "gs://b/x?endpoint_override=h"],
    )
    def test_an_address_with_more_is_refused(self, address: str) -> None:
        with pytest.raises(UnsupportedStorageError) as caught:
            Folder.at(address)
        assert "pw" not in str(caught.value)

    def test_scratch_that_is_in_use_stays_wherever_its_process_lives(
        self, tmp_path: Path, monkeypatch
    ) -> None:
        monkeypatch.setenv("TUNER_CACHE", str(tmp_path))
        (tmp_path / "scratch" / "4000000-dead").mkdir(parents=True)
        with node_cache.scratch() as mine, node_cache.scratch():
            assert mine.exists()
            assert not (tmp_path / "scratch" / "4000000-dead").exists()
