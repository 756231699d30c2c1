"""Servers on loopback that speak Google's and Azure's protocol: a fake of ours, and Azurite."""

from __future__ import annotations

import base64
import contextlib
import datetime
import email.utils
import hashlib
import hmac
import http.client
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

import filelock
import pytest

from tests.object_store import BUCKET, LoopbackServer

# -- Google. The client speaks the XML interface, and no emulator in a package registry has it: of
# those looked at, one answers writes with 400, and one has no listings there. So this is a fake
# of what is documented: it shows that the requests fit together, not how Google answers.

_PAGE = 20  # objects of a listing: small, so that listings have pages


class _Google(BaseHTTPRequestHandler):
    """Objects in memory: whole, conditional and multipart writes, ranges, listings, copies."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    objects: dict[str, tuple[bytes, int]]  # key -> content, generation
    parts: dict[str, dict[int, bytes]]  # upload -> number -> content
    numbers: Iterator[int]
    lock: threading.Lock

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path[1:]).partition("/")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        with self.lock:
            if bucket != BUCKET:
                self._fail(404, "NoSuchBucket")
            elif not key:
                self._list(query)
            elif "uploads" in query or "uploadId" in query:
                self._upload(key, query, body)
            else:
                getattr(self, f"_{self.command.lower()}")(key, body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815

    def _get(self, key: str, _: bytes) -> None:
        if key not in self.objects:
            self._fail(404, "NoSuchKey")
            return
        (content, generation), status = self.objects[key], 200
        written = email.utils.formatdate(generation / 1e6, usegmt=True)
        headers = self._version(key) | {"Last-Modified": written}
        if self.headers.get("If-Match", headers["ETag"]) != headers["ETag"]:
            self._fail(412, "PreconditionFailed")
            return
        if asked := self.headers.get("Range"):
            first, last = asked.removeprefix("bytes=").split("-")
            end = min(int(last) + 1, len(content))
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(content)}"
            content, status = content[int(first) : end], 206
        self._answer(status, content, headers)

    _head = _get

    def _put(self, key: str, body: bytes) -> None:
        wanted = self.headers.get("x-goog-if-generation-match")
        if wanted is not None and int(wanted) != self.objects.get(key, (b"", 0))[1]:
            self._fail(412, "PreconditionFailed")
            return
        if source := self.headers.get("x-goog-copy-source"):
            found = self.objects.get(unquote(source).partition("/")[2])
            if found is None:
                self._fail(404, "NoSuchKey")
                return
            body = found[0]
        self.objects[key] = body, next(self.numbers)
        self._answer(200, b"<CopyObjectResult/>" if source else b"", self._version(key))

    def _delete(self, key: str, _: bytes) -> None:
        if self.objects.pop(key, None) is None:
            self._fail(404, "NoSuchKey")
        else:
            self._answer(204)

    def _upload(self, key: str, query: dict[str, str], body: bytes) -> None:
        if "uploads" in query:
            name = f"upload-{next(self.numbers)}"
            self.parts[name] = {}
            text = (
                f"<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{escape(key)}</Key>"
                f"<UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            )
            self._answer(200, text.encode())
        elif self.command == "PUT":
            self.parts[query["uploadId"]][int(query["partNumber"])] = body
            self._answer(200, headers={"ETag": _tag(body)})
        elif self.command == "DELETE":
            self.parts.pop(query["uploadId"], None)
            self._answer(204)
        elif (found := self.parts.pop(query["uploadId"], None)) is None:
            self._fail(404, "NoSuchUpload")
        else:
            self.objects[key] = b"".join(found[n] for n in sorted(found)), next(self.numbers)
            tag = f"<ETag>{escape(self._version(key)['ETag'])}</ETag>"
            text = f"<CompleteMultipartUploadResult>{tag}</CompleteMultipartUploadResult>"
            self._answer(200, text.encode(), self._version(key))

    def _list(self, query: dict[str, str]) -> None:
        prefix, cut = query.get("prefix", ""), query.get("delimiter")
        found = list[str]()  # a common prefix or an entry each, in order
        for key in sorted(self.objects):
            if key.startswith(prefix):
                rest = key[len(prefix) :]
                is_folder = cut and cut in rest
                name = prefix + rest.partition(cut)[0] + cut if is_folder and cut else key
                if name not in found[-1:]:
                    found.append(name)
        left = [name for name in found if name > query.get("continuation-token", "")]
        shown = left[: min(_PAGE, int(query.get("max-keys", _PAGE)))]
        after = len(prefix)
        text = "".join(self._entry(name, bool(cut and cut in name[after:])) for name in shown)
        if len(shown) < len(left):
            text += f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>"
        self._answer(200, f"<ListBucketResult>{text}</ListBucketResult>".encode())

    def _entry(self, name: str, is_folder: bool) -> str:
        if is_folder:
            return f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
        content, generation = self.objects[name]
        written = datetime.datetime.fromtimestamp(generation / 1e6, datetime.UTC)
        return (
            f"<Contents><Key>{escape(name)}</Key><Generation>{generation}</Generation>"
            f"<LastModified>{written:%Y-%m-%dT%H:%M:%S}.{written:%f}Z</LastModified>"
            f"<ETag>{escape(_tag(content))}</ETag><Size>{len(content)}</Size></Contents>"
        )

    def _version(self, key: str) -> dict[str, str]:
        content, generation = self.objects[key]
        return {"ETag": _tag(content), "x-goog-generation": str(generation)}

    def _fail(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code></Error>".encode())

    def _answer(
        self, status: int, content: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _tag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def _generations() -> Iterator[int]:
    """Numbers that are microseconds of the clock, as Google's are."""
    newest = 0
    while True:
        newest = max(newest + 1, time.time_ns() // 1000)
        yield newest


@contextlib.contextmanager
def google_server() -> Iterator[str]:
    """Start a fake of Google's store with one bucket; yield its address."""
    state = {
        "objects": {}, "parts": {}, "numbers": _generations(), "lock": threading.Lock(),
    }  # fmt: skip
    with LoopbackServer(("127.0.0.1", 0), type("Handler", (_Google,), state)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


# -- Azure

_AZURITE = "azurite@3.37.0"
_ACCOUNT = "devstoreaccount1"
# The published key of every Azurite.
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def connection_string(endpoint: str) -> str:
    """Return what Azure's portal shows for an account, of which this is the emulator's."""
    return f"AccountName={_ACCOUNT};AccountKey={_KEY};BlobEndpoint={endpoint}/{_ACCOUNT};"


def account(endpoint: str) -> dict[str, str]:
    """Return the environment variables that say the same one by one."""
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
        "AZURE_STORAGE_ENDPOINT": f"{endpoint}/{_ACCOUNT}",
    }  # fmt: skip


def _azurite() -> Path:
    """Return Azurite's program, which npm installs once; skip the test where it cannot."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "audio-tuner-tests" / _AZURITE
    program = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if not shutil.which("node"):
        pytest.skip("no node")
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not program.exists():
            command = [
                "npm",
                "install",
                "--no-audit",
                "--no-fund",
                "--prefix",
                str(folder),
                _AZURITE,
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            if done.returncode:
                pytest.skip(f"npm cannot install {_AZURITE}: {done.stderr[-200:]}")
    return program


@contextlib.contextmanager
def azure_server() -> Iterator[str]:
    """Start Azurite with one container; yield its address."""
    options = ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--silent"]
    command = ["node", str(_azurite()), *options, "--blobHost", "127.0.0.1", "--blobPort", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            address = next(line.split()[-1] for line in process.stdout if "listens on" in line)
            _make_container(address)
            yield address
        finally:
            process.terminate()
            process.communicate(timeout=30)


def _make_container(address: str) -> None:
    date, version = email.utils.formatdate(usegmt=True), "2021-08-06"
    signed = "\n".join(
        ["PUT", *[""] * 11, f"x-ms-date:{date}", f"x-ms-version:{version}",
         f"/{_ACCOUNT}/{_ACCOUNT}/{BUCKET}", "restype:container"]
    )  # fmt: skip
    digest = hmac.new(base64.b64decode(_KEY), signed.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date, "x-ms-version": version, "Content-Length": "0",
        "Authorization": f"SharedKey {_ACCOUNT}:{base64.b64encode(digest).decode()}",
    }  # fmt: skip
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    connection.request("PUT", f"/{_ACCOUNT}/{BUCKET}?restype=container", headers=headers)
    assert connection.getresponse().status == 201
    connection.close()
