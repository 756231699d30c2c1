"""Machines with SSH servers, for `ray up`: each has a network, processes and a user of its own.

They are namespaces of this kernel and share its files. So `ray stop` on one of them ends no other
Ray of this host, ports do not clash, and a machine ends with all that runs on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.loopback import BIN

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # sshd is not on that of every user
TOOLS = ("sshd", "ssh", "ssh-keygen", "rsync", "ip", "unshare", "nsenter", "setpriv")
NAMESPACES = ["unshare", "--net", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child"]
# It has root's rights: this environment may lie where nobody else can read it.
USER = f"tuner-{os.getpid()}"
HOME = Path("/run/home")
# Of the connections that Ray keeps open, for its user; a path that Ray gives no choice of.
SOCKETS = Path("/tmp/ray_ssh_" + hashlib.sha256(USER.encode()).hexdigest()[:10])
SSHD = """
HostKey {key}
AuthorizedKeysFile {key}.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
PidFile none
SetEnv TMPDIR=/run RAY_USAGE_STATS_ENABLED=0
"""
# It waits for its cable. /run is its own: sshd wants it, and a worker's Ray writes to the path
# that the head's writes to, so homes must have one path, too. ssh takes it from the list of users.
BOOT = """
set -e; echo; read -r go; cd "$1"
mount --bind run /run; mkdir /run/sshd
mount --bind passwd /etc/passwd
exec "$(command -v sshd)" -D -f "$1/sshd_config" < /dev/null > log 2>&1
"""


def why_not() -> str:
    """Why there can be no such machines here; empty if there can."""
    if missing := [name for name in TOOLS if not shutil.which(name, path=PATH)]:
        return f"not installed: {', '.join(missing)}"
    done = subprocess.run([*NAMESPACES, "true"], env={"PATH": PATH}, capture_output=True)
    return "" if done.returncode == 0 else "namespaces need root"


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        address: Its address, which this host reaches too.
        folder: Folder of its files.
        init: The process of this host with which it ends.
    """

    address: str
    folder: Path
    init: subprocess.Popen[str]

    @property
    def home(self) -> Path:
        """Home of its user, as this host sees it."""
        return self.folder / HOME.relative_to("/")

    def processes(self) -> list[str]:
        """Command lines of what runs there, but for the SSH server."""
        found = []
        mine = Path(f"/proc/{self.init.pid}/ns/pid_for_children").readlink()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                if (folder / "ns" / "pid").readlink() == mine:
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return [line for line in found if line and "sshd" not in line.split()[0]]

    def install(self, variables: Mapping[str, str]) -> None:
        """Give its user variables, and an environment with the packages of this one.

        The project is not among them. pip may look for packages nowhere else.
        """
        env = self.home / "env"
        _run(sys.executable, "-m", "venv", "--without-pip", str(env))
        (packages,) = (one for one in sys.path if one.endswith("site-packages"))
        next(env.glob("lib/*/site-packages")).joinpath("all.pth").write_text(packages)
        for name in ("ray", "pip"):
            _, _, program = (BIN / name).read_text().partition("\n")
            (env / "bin" / name).write_text(f"#!{HOME}/env/bin/python\n{program}")
            (env / "bin" / name).chmod(0o755)
        lines = {**variables, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
        lines["PATH"] = f"{HOME}/env/bin:$PATH"
        text = "".join(f'export {name}="{value}"\n' for name, value in lines.items())
        (self.home / ".bashrc").write_text(text)


@dataclass(frozen=True)
class Site:
    """Machines in one network.

    Attributes:
        folder: Folder of all of them.
        host: Address of this host there.
        machines: The machines.
    """

    folder: Path
    host: str
    machines: list[Machine]

    @property
    def key(self) -> Path:
        """The key that opens each machine."""
        return self.folder / "key"


@contextlib.contextmanager
def site(count: int) -> Iterator[Site]:
    """Start machines, and end them with all that runs there.

    The first is the switch, too. A cable goes with the machine at its end, and machines with this
    process, even if it is killed.
    """
    folder = Path(tempfile.mkdtemp(prefix="site-"))
    net = f"198.18.{secrets.randbelow(256)}"  # a range that is nobody's
    running = Site(folder, f"{net}.1", [])
    try:
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(running.key))
        for number in range(count):
            running.machines.append(_boot(folder / str(number), f"{net}.{number + 2}"))
            _plug(running)
        yield running
    finally:
        for machine in running.machines:
            machine.init.kill()
            machine.init.communicate()
        for one in (folder, SOCKETS):
            shutil.rmtree(one, ignore_errors=True)


def _boot(folder: Path, address: str) -> Machine:
    """Start a machine up to the point where it needs a cable."""
    (folder / HOME.relative_to("/")).mkdir(parents=True)
    (folder / "sshd_config").write_text(SSHD.format(key=folder.parent / "key"))
    others = [one for one in Path("/etc/passwd").read_text().splitlines() if ":x:0:" not in one]
    users = [f"{USER}:x:0:0::{HOME}:/bin/bash", *others]
    (folder / "passwd").write_text("".join(f"{one}\n" for one in users))
    boot = ["setpriv", "--pdeathsig", "KILL", *NAMESPACES, "sh", "-c", BOOT, "sh", str(folder)]
    pipe = subprocess.PIPE
    init = subprocess.Popen(boot, env={"PATH": PATH}, stdin=pipe, stdout=pipe, text=True)
    assert init.stdout
    init.stdout.readline()  # it has its namespaces
    return Machine(address, folder, init)


def _plug(running: Site) -> None:
    """Connect the newest machine with the others, and let it go on."""
    number, new = len(running.machines) - 1, running.machines[-1]
    switch, own = str(running.machines[0].init.pid), str(new.init.pid)

    def inside(process: str, *words: str) -> None:
        _run("nsenter", "-t", process, "-n", "ip", *words)

    inside(own, "link", "set", "lo", "up")
    if number:
        ends = ["peer", "name", "eth0", "netns", own]
        _run("ip", "link", "add", f"p{number}", "netns", switch, "type", "veth", *ends)
    else:
        inside(own, "link", "add", "eth0", "type", "bridge")
        cable = "tuner" + running.host.split(".")[2]
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "p0", "netns", own)
        _run("ip", "address", "add", f"{running.host}/24", "dev", cable)
        _run("ip", "link", "set", cable, "up")
    inside(switch, "link", "set", f"p{number}", "master", "eth0", "up")
    inside(own, "address", "add", f"{new.address}/24", "dev", "eth0")
    inside(own, "link", "set", "eth0", "up")
    inside(own, "route", "add", "default", "via", running.host)
    assert new.init.stdin
    new.init.stdin.write("\n")
    new.init.stdin.flush()


def _run(*command: str) -> None:
    done = subprocess.run(command, env={"PATH": PATH}, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)
