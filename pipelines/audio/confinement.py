"""Sandbox rules of the decoder process, applied before it opens a file.

Codecs are C code that reads files of strangers. Two mechanisms of Linux, both irrevocable, each
used where the kernel has it: Landlock (landlock(7)) allows reading below the folders of Python and
of system libraries and refuses every other path, TCP, and signals to others; a seccomp filter
(seccomp(2)) answers ENOSYS to every system call that decoding does not need, so to all that make
sockets, processes, files or names of files.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
import sys
import termios
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

LANDLOCK = (444, 445, 446)  # create_ruleset, add_rule, restrict_self; the same on all machines
_NO_NEW_PRIVILEGES, _SET_SECCOMP = 38, 22  # of prctl(2)

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_RIGHTS = (13, 14, 15, 15)  # rights to files that versions 1, 2, 3, 4 know; later ones know 16
_TCP, _SCOPES = 0b11, 0b11  # bind and connect; abstract Unix sockets and signals
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")

# System calls that decoding, Python's memory and the import of PyAV need, by their numbers on
# x86-64 and 64-bit ARM, which lacks older forms of some. There is no way here to make a socket, a
# process, a thread or a name of a file, nor to reach those of others.
_ALLOWED = {
    "read": (0, 63), "readv": (19, 65), "pread64": (17, 67), "lseek": (8, 62),
    "write": (1, 64), "writev": (20, 66), "ftruncate": (77, 46),
    "close": (3, 57), "dup": (32, 23), "fstat": (5, 80), "newfstatat": (262, 79),
    "stat": (4, None), "lstat": (6, None), "statx": (332, 291), "getdents64": (217, 61),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "readlink": (89, None), "readlinkat": (267, 78), "getcwd": (79, 17),
    "recvmsg": (47, 212), "sendto": (44, 206), "poll": (7, None), "ppoll": (271, 73),
    "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216),
    "madvise": (28, 233), "mbind": (237, 235), "brk": (12, 214), "futex": (202, 98),
    "membarrier": (324, 283),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132), "restart_syscall": (219, 128), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "getcpu": (309, 168), "uname": (63, 160),
    "sysinfo": (99, 179), "getrusage": (98, 165), "getrlimit": (97, 163), "getrandom": (318, 278),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101), "gettimeofday": (96, 169), "getpid": (39, 172), "gettid": (186, 178),
    "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
    "getegid": (108, 177), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip

# Others that one argument decides: its index, and the values that are allowed. All are 32 bits.
_FCNTL = (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL)
_BY_ARGUMENT = {
    "fcntl": ((72, 25), 1, _FCNTL),  # not F_SETOWN, which sends signals
    "ioctl": ((16, 29), 1, (termios.TCGETS, termios.FIOCLEX)),
    "prlimit64": ((302, 261), 0, (0,)),  # 0: this process
}
_TGKILL = (234, 131)  # for abort(3): signals to this process alone
_OPENAT = (257, 56)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# Machines: the column of the tables above, and the number in the kernel's audit.h.
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

# Operations of the filter's language, and its verdicts, from linux/bpf_common.h and seccomp.h.
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.ENOSYS, 0x80000000


def confine() -> tuple[str, ...]:
    """Close the doors for the calling thread, for good; return what holds from now on.

    Open descriptors stay usable. A kernel without Landlock or seccomp, or a container that forbids
    them, leaves that part open.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return ()
    # In this order, because the filter knows nothing of Landlock.
    holds = []
    if version := _restrict_paths(libc):
        holds.append(f"Landlock {version}")
    if platform.machine() in _MACHINES and sys.maxsize > 2**32:
        program = seccomp_program(*_MACHINES[platform.machine()])
        code = ctypes.create_string_buffer(program)
        filter_ = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
        if libc.prctl(_SET_SECCOMP, 2, filter_, 0, 0) == 0:
            holds.append("seccomp")
    return tuple(holds)


def _restrict_paths(libc: ctypes.CDLL) -> int:
    """Restrict this thread with Landlock and return its version; 0 without Landlock."""
    create, add, restrict = LANDLOCK
    version: int = libc.syscall(create, None, 0, 1)
    if version < 1:
        return 0
    rights = (1 << (*_RIGHTS, 16)[min(version, 5) - 1]) - 1
    network, scopes = _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0
    attributes = struct.pack("QQQ", rights, network, scopes)
    ruleset = libc.syscall(create, attributes, len(attributes), 0)
    if ruleset < 0:
        return 0
    with ExitStack() as stack:
        stack.callback(os.close, ruleset)
        for path in _readable():
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
            stack.callback(os.close, folder)
            allowed = _READ_FILE | _READ_DIR if path.is_dir() else _READ_FILE
            libc.syscall(add, ruleset, 1, struct.pack("=Qi", allowed, folder), 0)
        return version if libc.syscall(restrict, ruleset, 0) == 0 else 0


def _readable() -> list[Path]:
    """Return where modules and libraries lie that PyAV, imported on demand, may load."""
    packages = [spec.origin for name in ("numpy", "av") if (spec := find_spec(name))]
    folders = [Path(origin).parents[1] for origin in packages if origin]
    own = Path(__file__).parents[1]
    wanted = {Path(sys.prefix), Path(sys.base_prefix), own, *folders, *map(Path, _LIBRARIES)}
    return [path for path in wanted if path.exists()]


def seccomp_program(column: int, machine: int) -> bytes:
    """Return the filter's program: struct sock_filter, 8 bytes an instruction.

    Args:
        column: 0 for x86-64, 1 for 64-bit ARM.
        machine: Number of the machine as the kernel reports it with each call.
    """
    lines = [(_LOAD, 0, 0, 4), (_IF_EQUAL, 1, 0, machine), (_RETURN, 0, 0, _KILL)]
    lines.append((_LOAD, 0, 0, 0))  # the number of the call
    lines += _if_argument(_OPENAT[column], 2, [(_IF_ANY_BIT, _WRITING)], _REFUSE, _ALLOW)
    for numbers, index, values in (*_BY_ARGUMENT.values(), (_TGKILL, 0, (os.getpid(),))):
        tests = [(_IF_EQUAL, value) for value in values]
        lines += _if_argument(numbers[column], index, tests, _ALLOW, _REFUSE)
    for plain in _ALLOWED.values():
        if (number := plain[column]) is not None:
            lines += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    lines.append((_RETURN, 0, 0, _REFUSE))
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def _if_argument(
    number: int, index: int, tests: list[tuple[int, int]], found: int, otherwise: int
) -> list[tuple[int, int, int, int]]:
    """Return lines that end with a verdict on one call, by whether an argument meets a test."""
    checks = [(test, len(tests) - i, 0, value) for i, (test, value) in enumerate(tests)]
    return [
        (_IF_EQUAL, 0, len(tests) + 3, number),
        (_LOAD, 0, 0, 16 + 8 * index),  # the lower half, on little-endian machines
        *checks,
        (_RETURN, 0, 0, otherwise),
        (_RETURN, 0, 0, found),
    ]
