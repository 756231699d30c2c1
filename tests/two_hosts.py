"""Two network namespaces joined by a wire, as the two nodes of a cluster that other tools start.

Each command there sees its own processes only, so that `ray stop` ends no other Ray.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ADDRESSES = ("10.231.7.1", "10.231.7.2")
# A shell is the first process of the namespace: it collects those whose parents have ended.
ON_HOST = """#!/bin/bash
host=$1; shift
exec ip netns exec "{name}-$host" unshare --pid --fork --kill-child --mount --mount-proc \
    bash -c '"$@"; exit' bash "$@"
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for host in 0 1; do on-host $host "$@" > "$LOGS/node-$host.log" 2>&1 & done
wait %1; code=$?; wait
exit $code
"""
SCONTROL = f"""#!/bin/bash
[ "$*" = "show hostnames $SLURM_JOB_NODELIST" ] && printf '%s\\n' {" ".join(ADDRESSES)}
"""


def missing() -> str:
    """Return what this machine lacks for it, or nothing."""
    tools = [tool for tool in ("ip", "unshare") if not shutil.which(tool)]
    if tools or os.geteuid():
        return f"needs root and {' and '.join(tools or ['ip'])}"
    probe = subprocess.run(["unshare", "--pid", "--fork", "--net", "true"], capture_output=True)
    return "namespaces are not allowed here" if probe.returncode else ""


@contextmanager
def two_hosts(folder: Path) -> Iterator[dict[str, str]]:
    """An environment with ``on-host NUMBER COMMAND`` and Slurm's ``srun`` and ``scontrol``.

    Args:
        folder: Folder for these commands, the token and the output of ``srun``.
    """
    name = f"tuner-{os.getpid()}"
    # Sockets lie in it, and their path may have 107 characters.
    temporary = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    (folder / "bin").mkdir()
    for tool, text in {"on-host": ON_HOST, "srun": SRUN, "scontrol": SCONTROL}.items():
        (folder / "bin" / tool).write_text(text.replace("{name}", name))
        (folder / "bin" / tool).chmod(0o755)
    wire = [f"link add v0 netns {name}-0 type veth peer name v1 netns {name}-1"]
    for host, address in enumerate(ADDRESSES):
        inside = f"-n {name}-{host}"
        wire.insert(0, f"netns add {name}-{host}")
        wire += [f"{inside} addr add {address}/24 dev v{host}"]
        wire += [f"{inside} link set {device} up" for device in (f"v{host}", "lo")]
    try:
        for line in wire:
            subprocess.run(["ip", *line.split()], check=True, capture_output=True, text=True)
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "TUNE"))
        }
        yield kept | {
            "HOME": str(folder),
            "LOGS": str(folder),
            "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_TMPDIR": temporary,
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
    finally:
        for host in range(2):
            pids = subprocess.run(
                ["ip", "netns", "pids", f"{name}-{host}"], capture_output=True, text=True
            )
            for pid in pids.stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", f"{name}-{host}"], check=False)
        shutil.rmtree(temporary)
