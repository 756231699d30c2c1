"""An S3 server on loopback, and a proxy in front of it that makes trouble."""

from __future__ import annotations

import contextlib
import http.client
import logging
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUCKET = "music"
KEYS = {"AWS_ACCESS_KEY_ID": "canary-0f3c-id", "AWS_SECRET_ACCESS_KEY": "canary-0f3c-secret"}
_CODES = {403: "ExpiredToken", 404: "NoSuchBucket"}
_HOP = {"connection", "transfer-encoding", "content-length", "host", "expect"}


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Start an S3 server with one bucket; yield its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("PUT", f"/{BUCKET}")
        assert connection.getresponse().status == 200
        connection.close()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


def variables(endpoint: str) -> dict[str, str]:
    """Environment variables by which an S3 server is found."""
    return {**KEYS, "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"}


# What happens to a request: its method, its path and its number -> status that is answered
# instead, "reset" or "cut" the connection or the answer, "lost" for an answer that never comes
# although the request was carried out, or None.
Trouble = Callable[[str, str, int], int | str | None]


class Proxy:
    """A server that passes requests on to another, as a bad network would.

    Attributes:
        address: Its address.
        trouble: What happens to a request.
        codes: Status -> what the error is called that is answered instead.
        conditions: What the store does with conditions of writes: kept, ignored or refused.
        copies: Whether the store copies objects.
        delay_seconds: Time that each request takes at least.
        bytes_per_second: Speed of bodies in each direction; None for any.
        requests: Method and path of each request.
        uploaded: Path -> bytes of the bodies that were sent to it.
    """

    def __init__(self, target: str, host: str = "127.0.0.1") -> None:
        self.trouble: Trouble = lambda *_: None
        self.codes = dict(_CODES)
        self.conditions: str = "kept"  # or "ignored", or "refused"
        self.copies = True
        self.delay_seconds = 0.0
        self.bytes_per_second: float | None = None
        self.requests: list[tuple[str, str]] = []
        self.uploaded: Counter[str] = Counter()
        self._target = target.removeprefix("http://")
        self._line = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = LoopbackServer((host, 0), handler)
        self.address = f"http://{host}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()

    def crawl(self, num_bytes: int) -> None:
        """Take the time of a body; all bodies share the line."""
        if self.bytes_per_second:
            with self._line:
                time.sleep(num_bytes / self.bytes_per_second)

    def forward(self, method: str, path: str, headers: Any, body: bytes) -> Any:
        """Send a request on; return the answer with its body."""
        connection = http.client.HTTPConnection(self._target, timeout=60)
        kept = {k: v for k, v in headers.items() if k.lower() not in _HOP - {"host"}}
        connection.request(method, path, body or None, {**kept, "Content-Length": str(len(body))})
        answer = connection.getresponse()
        return answer, answer.read()


class LoopbackServer(ThreadingHTTPServer):
    """A server of threads on this machine."""

    daemon_threads = True
    request_queue_size = 128  # with five, the sixth of many clients at once waits for a second

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or an answer waits 40 ms between its head and its body
    proxy: Proxy

    def _pass_on(self) -> None:
        proxy = self.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        number = len(proxy.requests)
        proxy.requests.append((self.command, self.path))
        proxy.uploaded[urllib.parse.urlsplit(self.path).path] += len(body)
        trouble = proxy.trouble(self.command, self.path, number)
        for name in ("If-None-Match", "If-Match", "x-goog-if-generation-match"):
            if proxy.conditions != "kept" and name in self.headers:
                del self.headers[name]
                trouble = 501 if proxy.conditions == "refused" else trouble
        if not proxy.copies and any("copy-source" in name.lower() for name in self.headers):
            trouble = 405
        time.sleep(proxy.delay_seconds)
        proxy.crawl(len(body))
        if trouble == "reset":
            self._hang_up()
            return
        if isinstance(trouble, int):
            error = f"<Error><Code>{proxy.codes.get(trouble, 'SlowDown')}</Code></Error>".encode()
            self._answer(trouble, {}, error, len(error))
            return
        answer, content = proxy.forward(self.command, self.path, self.headers, body)
        if trouble == "lost":
            self._hang_up()
            return
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
        size = len(content)
        if self.command == "HEAD":
            size = int(answer.getheader("Content-Length") or 0)
        proxy.crawl(len(content))
        sent = content[: size // 2] if trouble == "cut" else content
        self._answer(answer.status, headers, sent, size)
        if trouble == "cut":
            self._hang_up()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def _answer(self, status: int, headers: dict[str, str], content: bytes, size: int) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("server", "date"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(2)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
