"""Whether this machine has room on its disks and free ports."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from tuner.doctor.check import Check

GIB = 2**30


def nearest(folder: Path) -> Path:
    """The folder, or the closest one above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def writable(folder: Path) -> bool:
    """Whether a folder is one that can be written, or can be made."""
    place = nearest(folder)
    return place.is_dir() and os.access(place, os.W_OK)


def check_room(
    name: str, folder: Path, wanted_bytes: int = 10 * GIB, needed_bytes: int = GIB
) -> Check:
    """Whether a folder, existing or to be made, can be written and has room."""
    if not writable(folder):
        return Check(name, "FAIL", f"{folder} cannot be written", "choose another folder")
    free = shutil.disk_usage(nearest(folder)).free
    detail = f"{free / GIB:.1f} GiB free at {folder}"
    if free >= wanted_bytes:
        return Check(name, "ok", detail)
    remedy = f"{wanted_bytes / GIB:.0f} GiB are safe; free some space, or choose another folder"
    return Check(name, "FAIL" if free < needed_bytes else "warn", detail, remedy)


def check_shared_memory(folder: Path = Path("/dev/shm"), wanted_bytes: int = 2 * GIB) -> Check:
    """Whether Ray's object store fits into shared memory."""
    if not folder.exists():
        return Check("shared memory", "ok", f"no {folder} on this system")
    free = shutil.disk_usage(folder).free
    detail = f"{free / GIB:.1f} GiB free at {folder}"
    if free >= wanted_bytes:
        return Check("shared memory", "ok", detail)
    remedy = "Ray then uses the disk and is slow; in a container give it --shm-size=2g or more"
    return Check("shared memory", "warn", detail, remedy)


def check_port(port: int, purpose: str, remedy: str) -> Check:
    """Whether a port of the loopback is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return Check(f"port {port}", "warn", f"busy; {purpose}", remedy)
    return Check(f"port {port}", "ok", f"free for {purpose}")
