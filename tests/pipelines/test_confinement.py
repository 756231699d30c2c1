"""A hostile codec in the decoder process: what it tries, and what the kernel refuses."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.audio.sandbox import Decoder
from pipelines.errors import AudioRejected

# Takes the place of PyAV, which decodes WavPack, and tells in its error how each attempt ended.
CODEC = """
import ctypes, json, os, signal, socket, subprocess, threading
FFmpegError = OSError
FOLDER, PARENT = os.path.dirname(os.path.abspath(__file__)), os.getppid()
LIBC = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    if LIBC.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def at(name):
    return os.path.join(FOLDER, name)

def write(name, flags):
    os.close(os.open(at(name), flags, 0o600))

def forked():
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)

def kept():  # by the number of the descriptor, which is open for reading
    fd = os.open(at("victim"), os.O_RDONLY)
    os.fchmod(fd, 0o600)

ATTEMPTS = {
    "inet": lambda: socket.socket(socket.AF_INET),
    "inet6": lambda: socket.socket(socket.AF_INET6),
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "pair": socket.socketpair,
    "create": lambda: write("new", os.O_WRONLY | os.O_CREAT),
    "overwrite": lambda: write("victim", os.O_RDWR),
    "cut while opening": lambda: write("victim", os.O_RDONLY | os.O_TRUNC),
    "cut": lambda: os.truncate(at("victim"), 0),
    "link": lambda: os.symlink("x", at("link")),
    "folder": lambda: os.mkdir(at("folder")),
    "mode": lambda: os.chmod(at("victim"), 0o600),
    "mode of an open file": kept,
    "times": lambda: os.utime(at("victim")),
    "rename": lambda: os.rename(at("victim"), at("moved")),
    "delete": lambda: os.unlink(at("doomed")),
    "run": lambda: subprocess.run(["/bin/true"]),
    "fork": forked,
    "thread": lambda: threading.Thread(target=int).start(),
    "signal": lambda: os.kill(PARENT, 0),
    "signal group": lambda: os.killpg(os.getpgid(PARENT), 0),
    "handle of a process": lambda: os.pidfd_open(PARENT),
    "limit of a process": lambda: __import__("resource").prlimit(PARENT, 7),
    "shared memory": lambda: call(29, 0, 4096, 0o600),
    "user space": lambda: call(272, 0x10000000),
}
ATTACKS_ONLY = {
    "trace": lambda: call(101, 16, PARENT, 0, 0),
    "ring": lambda: call(425, 8, ctypes.create_string_buffer(120)),
    "x32": lambda: call(0x40000000 | 41, 2, 1, 0),
    "read a secret": lambda: os.close(os.open("/etc/passwd", os.O_RDONLY)),
    "read the environment": lambda: os.close(os.open("/proc/self/environ", os.O_RDONLY)),
}

def tried(attempts):
    ends = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            ends[name] = "done"
        except (OSError, RuntimeError) as error:
            ends[name] = type(error).__name__
    return ends

def open(*_, **__):
    raise ValueError(json.dumps(tried(ATTEMPTS | ATTACKS_ONLY)))

if __name__ == "__main__":
    print(json.dumps(tried(ATTEMPTS)))
"""

LACKING = {"Landlock": "LANDLOCK = (4444, 4445, 4446)", "seccomp": "platform.machine = lambda: ''"}
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("victim", "doomed"):
        (tmp_path / name).write_bytes(b"as it was")
    (tmp_path / "av.py").write_text(CODEC)
    (tmp_path / "a.wv").write_bytes(b"wvpk" + bytes(100))
    return tmp_path


def holding(lacking: str = "") -> list[str]:
    """What holds after ``confine`` in a process of its own, on a kernel that lacks something."""
    program = f"""
import json, pipelines.audio.confinement as confinement
from pipelines.audio.confinement import platform
{lacking and "confinement." + lacking}
print(json.dumps(confinement.confine()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return json.loads(done.stdout)


def test_a_hostile_codec_gets_nowhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if len(holding()) < 2:
        pytest.skip("this kernel lacks Landlock or seccomp")
    monkeypatch.syspath_prepend(str(folder))
    with Decoder() as decoder, pytest.raises(AudioRejected) as caught:
        decoder.decode_path(folder / "a.wv", 22050)
    detail = caught.value.detail
    ends = json.loads(detail[detail.index("{") : detail.index("}") + 1])
    assert [name for name, end in ends.items() if end == "done"] == []
    assert len(ends) == 30
    assert (folder / "victim").read_bytes() == (folder / "doomed").read_bytes() == b"as it was"
    assert {path.name for path in folder.iterdir()} == {"a.wv", "av.py", "victim", "doomed"}


def test_a_codec_that_is_not_confined_gets_there(folder: Path) -> None:
    done = subprocess.run([sys.executable, folder / "av.py"], capture_output=True, check=True)
    ends = json.loads(done.stdout)
    # Containers may forbid some of their own accord.
    free = {"user space", "handle of a process", "netlink", "inet6", "limit of a process"}
    assert {name for name, end in ends.items() if end != "done"} <= free


@pytest.mark.parametrize("lacking", LACKING)
def test_a_kernel_without_one_of_them_has_the_other(lacking: str) -> None:
    there = [name.split()[0] for name in holding()]
    assert [name.split()[0] for name in holding(LACKING[lacking])] == [
        name for name in there if name != lacking
    ]


def test_every_usual_format_is_read_in_confinement(tmp_path: Path) -> None:
    tone = np.sin(np.arange(48000) / 20).astype(np.float32)
    with Decoder() as decoder:
        for name in ("a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3", "a.aiff", "a.caf", "a.au"):
            form = {"format": "OGG", "subtype": "OPUS"} if name == "a.opus" else {}
            soundfile.write(tmp_path / name, tone, 48000, **form)
            there = decoder.decode_path(tmp_path / name, 22050)
            assert len(there.samples) == pytest.approx(22050, rel=0.06)
        status = Path(f"/proc/{decoder.pid}/status").read_text()
    if "seccomp" in holding():
        assert "Seccomp:\t2" in status
