"""Files in a bucket: a real S3 server on loopback."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pipelines.errors import AudioRejected, CatalogError, UnsupportedStorageError, UserError
from pipelines.sources.catalog import read_catalog
from pipelines.sources.content import content_digest, digests
from pipelines.sources.files import files_at, read_all
from pipelines.sources.files.remote import RemoteFiles
from pipelines.storage import Folder
from tests.object_store import BUCKET, Proxy
from tests.other_stores import azure_server, connection_string, google_server
from tuner.init import name_of

SECRET = "very/secret+key"
QUOTED_SECRET = "very%2Fsecret%2Bkey"


def code(files: object, path: str) -> str:
    with pytest.raises(AudioRejected) as caught:
        os.close(files.open(path))  # type: ignore[attr-defined]
    return caught.value.code


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URI of a folder with audio in a bucket; key and secret in it, as a person may write it."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    options = f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    uri = f"s3://testing:{QUOTED_SECRET}@music/my set?{options}&allow_bucket_creation=true"
    try:
        import pyarrow.fs

        storage, base = pyarrow.fs.FileSystem.from_uri(uri.replace(" ", "%20"))
        storage.create_dir("music")
        for name in ["a/1.wav", "a/deep/ü 2.flac", "b/3.mp3", "a/notes.txt", "a/.hidden.wav"]:
            write(storage, f"{base}/{name}", name.encode())
        write(storage, f"{base}/listed/m.csv", b"path,label,artist\n1.wav,x,p\n2.wav,y,q\n")
        write(storage, f"{base}/listed/1.wav", b"one")
        yield uri
    finally:
        server.stop()


def write(storage: object, path: str, data: bytes) -> None:
    with storage.open_output_stream(path) as stream:  # type: ignore[attr-defined]
        stream.write(data)


def below(uri: str, path: str) -> str:
    folder, _, options = uri.partition("?")
    return f"{folder}/{path}?{options}"


@pytest.mark.timeout(60)
class TestRemote:
    def test_files_of_one_size_and_one_second_are_told_apart(self, bucket: str) -> None:
        found = digests(read_catalog(bucket))
        assert len(set(found.values())) == len(found) > 2

    def test_folders_in_a_bucket(self, bucket: str) -> None:
        catalog = read_catalog(bucket)
        assert [(t.path, t.label) for t in catalog.tracks] == [
            ("a/1.wav", "a"),
            ("a/deep/ü 2.flac", "a"),
            ("b/3.mp3", "b"),
            ("listed/1.wav", "listed"),
        ]
        assert catalog.ignored == 3  # notes.txt, .hidden.wav, m.csv
        assert catalog.root == bucket

    def test_a_file_comes_as_a_descriptor_in_memory(self, bucket: str) -> None:
        files = files_at(bucket)
        fd = files.open("a/deep/ü 2.flac")
        try:
            assert os.fstat(fd).st_size == len("a/deep/ü 2.flac".encode())
            assert os.read(fd, 100).decode() == "a/deep/ü 2.flac"
            assert "memfd" in str(Path(f"/proc/self/fd/{fd}").readlink())
        finally:
            os.close(fd)

    @pytest.mark.parametrize(
        ("path", "expected"),
        [("nope.wav", "E_MISSING"), ("a", "E_MISSING"), ("../x.wav", "E_PATH_ESCAPE")],
    )
    def test_what_cannot_be_fetched(self, bucket: str, path: str, expected: str) -> None:
        files = files_at(bucket)
        assert code(files, path) == expected
        assert files.stamp(path) is None
        assert files.digest(path) is None

    def test_a_file_larger_than_the_limit_is_not_fetched(self, bucket: str) -> None:
        files = files_at(bucket)
        assert isinstance(files, RemoteFiles)
        with pytest.raises(AudioRejected) as caught:
            files.open("a/1.wav", max_bytes=6)
        assert caught.value.code == "E_TOO_LONG"
        os.close(files.open("a/1.wav", max_bytes=7))

    def test_a_file_of_many_blocks_arrives_whole(self, bucket: str) -> None:
        files = files_at(bucket)
        data = os.urandom(19 << 20)
        write(files._fs, files._full("big/x.bin"), data)  # type: ignore[attr-defined]
        try:
            assert read_all(files, "big/x.bin") == data
        finally:
            files._fs.delete_file(files._full("big/x.bin"))  # type: ignore[attr-defined]

    def test_a_manifest_in_a_bucket(self, bucket: str) -> None:
        catalog = read_catalog(below(bucket, "listed/m.csv"))
        assert [(t.path, t.label, dict(t.columns)) for t in catalog.tracks] == [
            ("1.wav", "x", {"artist": "p"}),
            ("2.wav", "y", {"artist": "q"}),
        ]
        assert catalog.root == below(bucket, "listed")
        assert digests(catalog).keys() == {"1.wav"}

    def test_the_digest_follows_a_write_and_nothing_else(self, bucket: str) -> None:
        catalog = read_catalog(bucket)
        first = digests(catalog)
        assert first.keys() == {track.path for track in catalog.tracks}
        assert digests(catalog) == first
        files = files_at(bucket)
        many = files.stamps([*first, *map(str, range(100))])  # by one listing
        assert many == files.stamps(first)  # file by file
        assert {path: files.digest(path) for path in first} == first
        write(files._fs, files._full("a/1.wav"), b"longer than before")  # type: ignore[attr-defined]
        second = digests(catalog)
        assert {path for path in first if first[path] != second[path]} == {"a/1.wav"}
        assert content_digest(catalog, first) != content_digest(catalog, second)

    def test_another_process_needs_the_root_alone(self, bucket: str) -> None:
        program = (
            "import sys; from pipelines.sources.files import files_at, read_all\n"
            "print(read_all(files_at(sys.stdin.read()), 'b/3.mp3').decode())"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=bucket, capture_output=True, text=True, timeout=50, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == "b/3.mp3"

    @pytest.mark.parametrize(
        "change",
        [
            lambda uri: uri.replace("music/my set", "nothing-here"),
            lambda uri: f"{uri}&colour=red",
            lambda uri: uri.replace("s3://", "s9://"),
            lambda uri: uri.replace("@music/my set", "@"),
            lambda uri: below(uri, "listed/gone.csv"),
            lambda uri: below(uri, "empty"),
        ],
    )
    def test_errors_do_not_hold_the_secret(self, bucket: str, change) -> None:
        with pytest.raises(CatalogError) as caught:
            read_catalog(change(bucket))
        whole = "".join(traceback.format_exception(caught.value))
        # the lines of source code in a traceback hold no values
        assert QUOTED_SECRET not in whole
        assert SECRET not in whole
        assert QUOTED_SECRET not in repr(read_catalog(bucket))

    def test_storage_that_does_not_answer_is_no_verdict_on_a_file(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            uri = f"s3://k:{QUOTED_SECRET}@b/x?endpoint_override=127.0.0.1:{port}&scheme=http"
            with pytest.raises(UserError, match="run the same command again") as caught:
                files_at(f"{uri}&region=r").open("a.wav")
        assert not isinstance(caught.value, AudioRejected)
        assert QUOTED_SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "variable", "value", "said"),
    [
        ("abfs://box/set", "HOME", "/nowhere", "AZURE_STORAGE_ACCOUNT_NAME or"),
        ("gs://box/set", "GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/keys.json", "keys.json"),
    ],
)
def test_keys_that_are_missing_are_named(
    uri: str, variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("AZURE_", "STORAGE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(variable, value)
    with pytest.raises(CatalogError, match=f"cannot use {uri}: .*{said}"):
        read_catalog(uri)


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with google_server() as address, contextlib.closing(Proxy(address)) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.address)
        yield proxy


def test_a_hiccup_of_the_store_and_a_name_that_the_client_refuses(google: Proxy) -> None:
    uri = f"gs://{BUCKET}/hiccup"
    Folder.at(uri).write_bytes("a/1.wav", b"one")
    files, failures = files_at(uri), iter([503] * 4)
    google.trouble = lambda *_: next(failures, None)
    assert read_all(files, "a/1.wav") == b"one"
    host = google.address.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request("PUT", f"/{BUCKET}/hiccup/a//odd.wav", b"odd")
    assert connection.getresponse().status == 200
    connection.close()
    with pytest.raises(UserError, match=r"rename a file: .*a//odd\.wav"):
        read_catalog(uri)


def test_keys_that_end_are_no_verdict_on_a_file(google: Proxy) -> None:
    uri = f"gs://{BUCKET}/ended"
    for path in ("a/1.wav", "AccessDenied/2.wav"):
        Folder.at(uri).write_bytes(path, b"one")
    files = files_at(uri)
    google.trouble = lambda *_: 403
    for code_403 in ("AccessDenied", "AuthorizationPermissionMismatch"):
        google.codes[403] = code_403
        assert code(files, "a/1.wav") == "E_PERM"
    google.codes[403] = "AuthenticationFailed"
    for ask in (files.open, files.stamp, lambda path: files.head(path, 3)):
        for path in ("a/1.wav", "AccessDenied/2.wav"):
            with pytest.raises(UserError, match="the keys are refused; run the") as caught:
                ask(path)
            assert not isinstance(caught.value, AudioRejected)


def test_the_empty_objects_that_consoles_make_for_folders_are_no_files(monkeypatch) -> None:
    with google_server() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
        for name in ("", "a/", "a/deep/", "a/deep/1.wav", "a/2.wav"):
            connection.request("PUT", f"/{BUCKET}/made/{name}", b"one" * name.endswith("wav"))
            connection.getresponse().read()
        connection.close()
        files = files_at(f"gs://{BUCKET}/made")
        assert {found.path for found in files.scan()} == {"a/deep/1.wav", "a/2.wav"}
        assert (files.names(), files.folders()) == (set(), {"a"})


@pytest.mark.parametrize("use", [read_catalog, files_at, Folder.at, name_of])
def test_addresses_that_are_none(use: Callable[[str], object]) -> None:
    for address in ("s3://box/a", "gs://box/a", "abfs://box/a", "file:///box/a"):
        with pytest.raises(UnsupportedStorageError, match=f"{address}#b: a # in a name is"):
            use(f"{address}#b")
    for host in ("[box", f"key:{QUOTED_SECRET}@bo\u2100x"):  # the second turns into "a/c"
        with pytest.raises(UnsupportedStorageError, match="not a valid address") as caught:
            use(f"s3://{host}/a?some={QUOTED_SECRET}")
        assert QUOTED_SECRET not in "".join(traceback.format_exception(caught.value))


def on_google(address: str) -> dict[str, str]:
    return {"STORAGE_EMULATOR_HOST": address}


def on_azure(address: str) -> dict[str, str]:
    return {"AZURE_STORAGE_CONNECTION_STRING": connection_string(address)}


@pytest.mark.parametrize(
    ("scheme", "server", "variables"),
    [
        ("gs", google_server, on_google),
        pytest.param("abfs", azure_server, on_azure, marks=pytest.mark.slow),
    ],
)
def test_audio_in_another_store_is_read_with_what_the_environment_knows(
    scheme: str,
    server: Callable[[], AbstractContextManager[str]],
    variables: Callable[[str], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = os.urandom(9 << 20)  # more than one piece
    with server() as address:
        for name, value in variables(address).items():
            monkeypatch.setenv(name, value)
        uri = f"{scheme}://{BUCKET}/my set"
        for name in ("a/1.wav", "a/deep/ü 2.flac", "b/3.mp3"):
            Folder.at(uri).write_bytes(name, name.encode())
        Folder.at(uri).write_bytes("b/4.wav", large)
        catalog = read_catalog(uri)
        assert {(t.path, t.label) for t in catalog.tracks} == {
            *(("a/1.wav", "a"), ("a/deep/ü 2.flac", "a"), ("b/3.mp3", "b"), ("b/4.wav", "b")),
        }
        files = files_at(uri)
        assert files.folders() == {"a", "b"}
        assert files.folders("a") == {"deep"}
        with os.fdopen(files.open("a/deep/ü 2.flac"), "rb") as file:
            assert file.read() == "a/deep/ü 2.flac".encode()
        assert read_all(files, "b/4.wav") == large
        assert files.head("b/4.wav", 100) == large[:100]
        codes = {path: code(files, path) for path in ("a/none.wav", "a/deep", "../x.wav")}
        assert list(codes.values()) == ["E_MISSING", "E_NOT_AUDIO", "E_PATH_ESCAPE"]
        stamp = files.stamp("a/1.wav")
        # Of many, the stamps come from a listing; a build compares the two.
        listed = files.stamps(["a/1.wav", *(f"none/{number}" for number in range(70))])
        assert listed == {"a/1.wav": stamp}
        time.sleep(1.1)  # the stores tell seconds
        Folder.at(uri).write_bytes("a/1.wav", b"A/1.WAV")
        assert stamp is not None
        assert files.stamp("a/1.wav") != stamp
        with pytest.raises(CatalogError, match="nothing at"):
            read_catalog(f"{scheme}://{BUCKET}/none")
        with pytest.raises(CatalogError, match="no such bucket"):
            read_catalog(f"{scheme}://{BUCKET}-none/set")
