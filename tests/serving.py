"""A web server on this machine that serves one file, and can break its promises."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves one file under any name.

    Args:
        content: The file.
        promised: Length that it promises, if not that of the file.
        redirect: Address that it sends everyone to instead, if not empty.
    """

    def __init__(self, content: bytes, promised: int | None = None, redirect: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.promised, self.redirect = content, promised, redirect
        self.asked = 0

    def address(self, name: str) -> str:
        """Address of the file under a name."""
        return f"http://127.0.0.1:{self.server_address[1]}/models/{name}"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self._send_head()

    def _send_head(self) -> None:
        self.send_response(302 if self.server.redirect else 200)
        if self.server.redirect:
            self.send_header("Location", self.server.redirect)
        self.send_header("Content-Length", str(self.server.promised or len(self.server.content)))
        self.end_headers()

    def do_GET(self) -> None:
        self.server.asked += 1
        self._send_head()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def serving(content: bytes, promised: int | None = None, redirect: str = "") -> Iterator[Server]:
    """Run a server for as long as it is needed."""
    server = Server(content, promised, redirect)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
