"""Fetch a package file that holds weights with pip, and open it as a zip."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipelines.errors import WeightsError

if TYPE_CHECKING:
    from pipelines.features.networks import Wheel

TIMEOUT_SECONDS = 600.0
"""Longest time that pip may take."""
# pip's own defaults are five retries with growing pauses.
_PATIENCE = ("--retries", "1", "--timeout", "15")
_REASON_LENGTH = 300


@contextmanager
def fetched(wheel: Wheel, timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[zipfile.ZipFile]:
    """Fetch a package file from the index that pip is set up with, for as long as it is needed.

    The file is neither installed nor imported, and its requirements are not fetched.

    Args:
        wheel: The file.
        timeout_seconds: Longest time that pip may take.

    Yields:
        The file, opened as a zip.

    Raises:
        WeightsError: It cannot be fetched, or is another file than the one expected; says why.
    """
    if offline():
        raise WeightsError(f"{wheel} is not fetched, because HF_HUB_OFFLINE is set")
    with TemporaryDirectory(prefix="audio-tuner-") as folder:
        file = _download(wheel, Path(folder), timeout_seconds)
        _check(wheel, file)
        with zipfile.ZipFile(file) as content:
            yield content


def offline() -> bool:
    """Return True if HF_HUB_OFFLINE is set, which forbids fetching weights, as on Hugging Face."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _download(wheel: Wheel, folder: Path, timeout_seconds: float) -> Path:
    """Return the file that pip has put into a folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", *_PATIENCE]
    command += ["--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    command += [] if wheel.platform == "any" else ["--platform", wheel.platform]
    try:
        done = subprocess.run(
            [*command, "--dest", str(folder), str(wheel)],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(f"pip took more than {timeout_seconds:g} s to fetch {wheel}") from None
    files = list(folder.iterdir())
    if done.returncode != 0 or len(files) != 1:
        raise WeightsError(f"pip cannot fetch {wheel}: {_reason(done.stderr)}")
    return files[0]


def _reason(output: str) -> str:
    """Return the last error in pip's output, on one line."""
    lines = output.strip().splitlines() or ["it says nothing"]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
    return textwrap.shorten(errors[-1].removeprefix("ERROR:"), _REASON_LENGTH)


def _check(wheel: Wheel, file: Path) -> None:
    """Check size and digest.

    Raises:
        WeightsError: It is another file.
    """
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    size = file.stat().st_size
    if (size, digest) != (wheel.num_bytes, wheel.sha256):
        raise WeightsError(
            f"pip brought another file than the known one for {wheel}: {size:,} bytes with "
            f"SHA-256 {digest} instead of {wheel.num_bytes:,} bytes with {wheel.sha256}"
        )
