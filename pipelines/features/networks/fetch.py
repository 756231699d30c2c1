"""Files with published weights, fetched from a package index or an address and then checked."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from pipelines.errors import WeightsError
from pipelines.plain_text import shorten

PIP_TIMEOUT_SECONDS = 600.0
"""Longest time that pip may take."""
SILENCE_SECONDS = 20.0
"""Longest silence of a server."""
# pip's own defaults are five retries with growing pauses.
_PATIENCE = ("--retries", "1", "--timeout", "15")
_QUICKLY = ("--retries", "0", "--timeout", "5")
_NO_HEAD = (405, 501)  # answers of servers that give a file, but not its head alone
PROBE_SECONDS = 15.0
"""Longest time that a question to the index may take."""
_REASON_LENGTH = 300
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Wheel:
    """A package file that holds published weights; it is read as a zip, never imported.

    Attributes:
        package: Name on the package index.
        version: Pinned version.
        platform: Platform tag of the file, for pip; ``any`` for all.
        sha256: SHA-256 of the file, in hexadecimal digits.
        num_bytes: Size of the file.
    """

    package: str
    version: str
    platform: str
    sha256: str
    num_bytes: int

    def __str__(self) -> str:
        return f"package {self.package}=={self.version}"

    def download(self, folder: Path, timeout_seconds: float = PIP_TIMEOUT_SECONDS) -> Path:
        """Download the file from the index that pip is set up with; returns its path.

        It is neither installed nor imported, and its requirements are not downloaded.

        Raises:
            OSError: Says why it cannot be downloaded.
        """
        _refuse_offline()
        name = f"{self.package}=={self.version}"
        options = "--quiet", "--no-deps", *_PATIENCE, "--dest", str(folder)
        try:
            done = self._pip("download", *options, name, timeout_seconds=timeout_seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"pip took more than {timeout_seconds:g} s") from None
        files = list(folder.iterdir())
        if done.returncode != 0 or len(files) != 1:
            raise OSError(f"pip says: {_last_error(done.stderr)}")
        return files[0]

    def obstacle(self) -> str | None:
        """Return why the file cannot be fetched, or None if the index has it.

        pip asks the index for the versions of the package, which takes about a second; nothing is
        fetched.
        """
        try:
            done = self._pip(
                "index",
                "versions",
                "-vv",
                *_QUICKLY,
                self.package,
                timeout_seconds=PROBE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"the package index did not answer within {PROBE_SECONDS:g} s"
        versions = re.search(r"Available versions:(.*)", done.stdout)
        if versions and self.version in versions[1].replace(",", " ").split():
            return None
        # pip names an index that it cannot reach only with -vv; 404 is an answer.
        if any(" 404 " not in line for line in re.findall("Could not fetch URL.*", done.stdout)):
            return "the package index was not reached"
        return f"the package index does not have {self.package}=={self.version}"

    def _pip(self, *words: str, timeout_seconds: float) -> subprocess.CompletedProcess[str]:
        platform = () if self.platform == "any" else ("--platform", self.platform)
        return subprocess.run(
            [
                sys.executable, "-m", "pip", *words, "--no-input", "--only-binary", ":all:",
                "--disable-pip-version-check", *platform,
            ],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout_seconds,
            check=False,
        )  # fmt: skip


@dataclass(frozen=True)
class Download:
    """A file with published weights at an address.

    Attributes:
        address: Its ``https://`` or ``http://`` address.
        sha256: SHA-256 of the file, in hexadecimal digits.
        num_bytes: Size of the file.
    """

    address: str
    sha256: str
    num_bytes: int

    def __str__(self) -> str:
        return self.address

    def download(self, folder: Path) -> Path:
        """Download the file; returns its path.

        Raises:
            OSError: Says why it cannot be downloaded.
        """
        file = folder / "weights"
        download(self.address, file, max_bytes=self.num_bytes)
        return file

    def obstacle(self) -> str | None:
        """Return why the file cannot be fetched, or None if the server answers."""
        import urllib.error
        import urllib.request
        from http.client import HTTPException

        request = urllib.request.Request(self.address, method="HEAD")
        try:
            urllib.request.build_opener().open(request, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError as error:
            return None if error.code in _NO_HEAD else f"{self.address}: {error}"
        except (OSError, HTTPException, ValueError) as error:
            return f"{self.address}: {error}"
        return None


Source: TypeAlias = Wheel | Download
"""Where published weights come from: anything with these fields and methods."""


@contextmanager
def fetched(source: Source) -> Iterator[Path]:
    """Fetch a file for as long as it is needed.

    Yields:
        Path of the file, whose size and digest are right.

    Raises:
        WeightsError: It cannot be fetched, or is another file than the one expected; says why.
    """
    with TemporaryDirectory(prefix="audio-tuner-") as folder:
        try:
            file = source.download(Path(folder))
        except OSError as error:
            raise WeightsError(f"{source} cannot be fetched: {error}") from error
        _check(source, file)
        yield file


def offline() -> bool:
    """Return True if HF_HUB_OFFLINE is set, which forbids fetching weights, as on Hugging Face."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def obstacle(source: Source) -> str | None:
    """Return why a file cannot be fetched, or None if it can; nothing is fetched."""
    return "HF_HUB_OFFLINE is set" if offline() else source.obstacle()


def _refuse_offline() -> None:
    if offline():
        raise OSError("HF_HUB_OFFLINE is set")


def download(
    address: str,
    file: Path,
    *,
    timeout_seconds: float = SILENCE_SECONDS,
    max_bytes: int | None = None,
) -> None:
    """Download a file over HTTP, through the proxies of the environment.

    Args:
        address: Its address. A redirection to anything but HTTP and FTP is refused.
        file: Where to write it.
        timeout_seconds: Longest silence of the server.
        max_bytes: Size after which the rest is left; None without a limit.

    Raises:
        OSError: Says why it cannot be downloaded; ``file`` may hold a part of it.
    """
    import urllib.request
    from http.client import HTTPException

    _refuse_offline()
    try:
        with (
            # urlopen would keep the proxies of its first call.
            urllib.request.build_opener().open(address, timeout=timeout_seconds) as answer,
            file.open("wb") as target,
        ):
            while block := answer.read(_BLOCK_BYTES):
                target.write(block)
                if max_bytes is not None and target.tell() > max_bytes:
                    return
            received, expected = target.tell(), answer.headers.get("Content-Length")
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    if expected is not None and received != int(expected):
        raise OSError(f"the connection broke after {received:,} of {int(expected):,} bytes")


def _last_error(output: str) -> str:
    """Return the last error in pip's output, on one line."""
    lines = output.strip().splitlines() or ["nothing"]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
    return shorten(errors[-1].removeprefix("ERROR:").strip(), _REASON_LENGTH)


def _check(source: Source, file: Path) -> None:
    """Check size and digest.

    Raises:
        WeightsError: It is another file.
    """
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    size = file.stat().st_size
    if (size, digest) != (source.num_bytes, source.sha256):
        raise WeightsError(
            f"{source} is another file than the known one: {size:,} bytes with SHA-256 {digest} "
            f"instead of {source.num_bytes:,} bytes with {source.sha256}"
        )
