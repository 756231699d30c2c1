"""Rivals and ours on the same recordings, split, minutes and two cores: ``--data DIR``.

Each rival gets an environment of its own under ``--out``. A run is one command, as a user would
type it; with ``--kill`` it ends by ``kill -9`` after a third of its time and is started again.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import click
import psutil
import pyarrow.parquet as pq

from benchmarks.paired import machine
from pipelines.demo import write_demo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Rival:
    """One way to the same end.

    Attributes:
        command: Shell command; it knows PYTHON, MANIFEST, OUT, SECONDS and HERE.
        written: Files that a user had to write, in this folder.
        requirements: What its environment holds; none for ours.
        python: Version of its Python.
        trials: Pattern of a file that a trial leaves in OUT at its end (Ray: at its first report).
    """

    command: str
    trials: str
    written: tuple[str, ...] = ()
    requirements: str = ""
    python: str = "3.11"


def _ours(space: str) -> Rival:
    command = (
        f'cd "$ROOT" && "$PYTHON" -m tuner.run search_spaces/{space}.yaml --data "$DATA" '
        '--set "data.split=$SPLIT" --set data.leaks=drop --budget ${SECONDS_LEFT}s '
        '--storage "$OUT/results" --json'
    )
    return Rival(command, "results/studies/*/trials/*/trial.json")


RIVALS = {
    "ours-cnn": _ours("cnn"),
    "optuna": Rival(
        '"$PYTHON" "$HERE/optuna_search.py" "$MANIFEST" "$OUT" "$SECONDS_LEFT"',
        "trial-*.pt",
        ("torch_cnn.py", "optuna_search.py"),
        "optuna.txt",
    ),
    "raytune": Rival(
        '"$PYTHON" "$HERE/ray_search.py" "$MANIFEST" "$OUT" "$SECONDS_LEFT"',
        "search/*/checkpoint_000000/model.pt",
        ("torch_cnn.py", "ray_search.py"),
        "ray.txt",
    ),
    "ludwig": Rival(
        'PATH="$BIN:$PATH" bash "$HERE/ludwig.sh"',
        "hyperopt/*/checkpoint_000000",
        ("ludwig.yaml", "ludwig.sh"),
        "ludwig.txt",
        "3.12",
    ),
    "autrainer": Rival(
        'PATH="$BIN:$PATH" bash "$HERE/autrainer.sh"',
        "results/*/training/*/metrics.csv",
        ("autrainer.yaml", "autrainer_data.yaml", "autrainer.sh"),
        "autrainer.txt",
    ),
    "ours-auto": _ours("auto"),
}


def write_manifest(data: Path, out: Path) -> dict[str, str]:
    """Write path, label and split of each recording: by ESC-10's folds, or by the demo's artists.

    Returns:
        MANIFEST with whole paths for the rivals; DATA and SPLIT of the same split for ours, which
        reads recordings only from the folder of their manifest.
    """
    if not (data / "manifest.csv").exists():
        write_demo(data, 150, 0, None, lambda done, total: None)
    with (data / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    ours = {"DATA": str(data / "manifest.csv"), "SPLIT": "{column: fold, val: [4], test: [5]}"}
    if "fold" in rows[0]:
        splits = {row["path"]: {"4": "val", "5": "test"}.get(row["fold"], "train") for row in rows}
    else:
        build = [sys.executable, "-m", "pipelines.build", str(data / "manifest.csv")]
        subprocess.run([*build, "--storage", str(out / "build")], cwd=ROOT, check=True)
        (tracks,) = (out / "build").glob("features/*/tracks.parquet")
        splits = {row["path"]: row["split"] for row in pq.read_table(tracks).to_pylist()}
        ours = {"DATA": str(data / "split.csv"), "SPLIT": "{column: split}"}
        _write(data / "split.csv", [row | {"split": splits[row["path"]]} for row in rows])
    manifest = out / f"{data.name}.csv"
    wanted = (
        {"path": str(data / row["path"]), "label": row["label"], "split": splits[row["path"]]}
        for row in rows
    )
    _write(manifest, list(wanted))
    return ours | {"MANIFEST": str(manifest)}


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def environment(name: str, rival: Rival, out: Path) -> Path:
    """Return the rival's Python, after an installation if it has none."""
    if not rival.requirements:
        return Path(sys.executable)
    venv = out / "venv"
    python = venv / "bin" / "python"
    if not (venv / "installed").exists():
        told: Any = {"check": True, "stderr": subprocess.PIPE, "text": True}
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "uv"
        subprocess.run([uv, "venv", "-q", "--clear", "--python", rival.python, venv], **told)
        requirements = str(HERE / rival.requirements)
        install = [uv, "pip", "install", "-q", "--python", str(python), "-r", requirements]
        subprocess.run(install, **told)
        (venv / "installed").touch()
    return python


@dataclass
class Watched:
    """What a command's processes did, looked at each second.

    Attributes:
        seconds: Time from the start to the end of the command.
        code: Its exit code; -9 if it was killed.
        processor_s: Processor time of its processes, of 2 x seconds that there were at most.
        written_mb: What its processes handed to the disk.
        load: Mean load average of the machine.
        left_behind: Processes that lived 10 s longer than the command; they were then ended.
    """

    seconds: int
    code: int
    processor_s: int
    written_mb: float
    load: float
    left_behind: int


def watch(command: str, variables: dict[str, str], log: Path, kill_after_s: float) -> Watched:
    """Run a shell command on two cores and kill it with SIGKILL after some time, if it still runs.

    Only the command is killed, as if memory had run out; what it started must notice by itself.
    """
    began = time.monotonic()
    written: dict[int, int] = {}
    used_s: dict[int, float] = {}
    known: dict[int, psutil.Process] = {}
    loads = []
    with log.open("a") as file:
        # exec, so that the process that is killed is the program and not its shell
        process = psutil.Popen(
            ["bash", "-c", command],
            stdout=file,
            stderr=file,
            env=os.environ | variables,
        )
        while (code := process.poll()) is None:
            for one in [process, *process.children(recursive=True)]:
                known[one.pid] = one
                try:
                    written[one.pid] = one.io_counters().write_bytes
                    used_s[one.pid] = sum(one.cpu_times()[:2])
                except psutil.Error:
                    continue
            loads.append(os.getloadavg()[0])
            if time.monotonic() - began > kill_after_s:
                kill(process)
            time.sleep(1)
    seconds = time.monotonic() - began
    time.sleep(10)
    living = [one for one in known.values() if one.is_running() and one.status() != "zombie"]
    for one in living:
        one.kill()
    return Watched(
        seconds=round(seconds),
        code=code,
        processor_s=round(sum(used_s.values())),
        written_mb=round(sum(written.values()) / 1e6),
        load=round(mean(loads), 1),
        left_behind=len(living),
    )


def kill(process: psutil.Process) -> None:
    """Kill the program that a shell waits for, and the shell."""
    chain = [process]
    while chain[-1].name() == "bash" and chain[-1].children():
        chain.append(chain[-1].children()[0])
    for one in reversed(chain):
        one.kill()


def finished(rival: Rival, out: Path) -> dict[str, int]:
    """Return when each trial's last file was written, in ns."""
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.glob(rival.trials)}


def score(out: Path, log: Path) -> dict[str, Any]:
    """Return macro F1 and accuracy on test: of test.json, or of the last line of ours."""
    if (out / "test.json").exists():
        return dict(json.loads((out / "test.json").read_text()))
    last = log.read_text(errors="replace").splitlines()[-1:]
    found = json.loads(last[0]) if last and last[0].startswith('{"status"') else {}
    if not found.get("test"):
        return {}
    test, val = found["test"], found["best"]["val"]
    return {"f1": test["f1_macro"], "accuracy": test["accuracy"], "val_f1": val["f1_macro"]}


def code_lines(rival: Rival) -> int:
    """Count what a user wrote: no empty lines, no comments."""
    lines = [line for name in rival.written for line in (HERE / name).read_text().splitlines()]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)


def run(
    name: str, inputs: dict[str, str], base: Path, minutes: float, is_killed: bool
) -> dict[str, Any]:
    """Run a rival once, or twice if the first is to be killed, in an empty folder."""
    rival = RIVALS[name]
    home = base / name
    home.mkdir(parents=True, exist_ok=True)
    python = environment(name, rival, home)
    out = home / ("killed" if is_killed else "run")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    log = home / f"{out.name}.log"
    log.unlink(missing_ok=True)
    row: dict[str, Any] = {"rival": name, "minutes": minutes, "lines": code_lines(rival)}
    with tempfile.TemporaryDirectory(prefix="rv", ignore_cleanup_errors=True) as temporary:
        variables = inputs | {
            "PYTHON": str(python),
            "BIN": str(python.parent),
            "ROOT": str(ROOT),
            "HERE": str(HERE),
            "OUT": str(out),
            "SECONDS_LEFT": str(round(60 * minutes)),
            "TMPDIR": temporary,
            "RAY_TMPDIR": temporary,
            "OMP_NUM_THREADS": "2",
            "HF_HUB_OFFLINE": "1",
            # else Ray's workers, and no others, give way to whatever else the machine does
            "RAY_worker_niceness": "0",
        }
        before: dict[str, int] = {}
        if is_killed:
            first = watch(rival.command, variables, log, 20 * minutes)
            before = finished(rival, out)
            row["killed"] = vars(first) | {"trials": len(before)}
        # longer than this, and it is not one that keeps to a time
        row["run"] = vars(watch(rival.command, variables, log, 60 * minutes + 600))
        if is_killed:
            after = finished(rival, out)
            row["killed"]["trials_kept"] = sum(after.get(t) == at for t, at in before.items())
        row["trials"] = len(finished(rival, out))
        row["disk_mb"] = size_mb(out)
        row["temporary_mb"] = size_mb(Path(temporary))
    row["log_lines"] = log.read_text(errors="replace").count("\n")
    row["log_kb"] = round(log.stat().st_size / 1e3)
    return row | score(out, log)


def size_mb(folder: Path) -> float:
    """Return the size of all files, links not followed."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return round(sum(path.stat().st_size for path in files) / 1e6, 1)


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows that were written as lines of a Markdown table."""
    lines = [
        "| program | F1 on test (validation) | time, s (processor) | trials | disk, MB (written) "
        "| log, lines | after `kill -9` | lines to write |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "not_run" in row:
            lines.append(f"| {row['rival']} | not run |||||||")
            continue
        ran, killed = row["run"], row.get("killed")
        scored = f"{row['f1']:.3f} ({row['val_f1']:.3f})" if "f1" in row else "none"
        after = "not killed"
        if killed:
            after = f"{killed['trials_kept']} of {killed['trials']} trials kept"
        cells = [
            row["rival"], scored, f"{ran['seconds']} ({ran['processor_s']})", row["trials"],
            f"{row['disk_mb']:.0f} ({ran['written_mb']})", row["log_lines"], after, row["lines"],
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="ESC-10 or the demo.")
@click.option("--minutes", default=10.0, show_default=True, help="Time that each is given.")
@click.option("--only", multiple=True, type=click.Choice(list(RIVALS)), help="Not all of them.")
@click.option("--kill", "is_killed", is_flag=True, help="Kill it after a third, and start again.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/rivals"))
def main(data: Path, minutes: float, only: tuple[str, ...], is_killed: bool, out: Path) -> None:
    """Run the rivals one after the other; print a JSON object for each, and a table of all."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    data, out = data.resolve(), out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    inputs = write_manifest(data, out)
    rows = []
    for name in only or RIVALS:
        try:
            row = run(name, inputs, out, minutes, is_killed)
        except subprocess.CalledProcessError as problem:
            row = {"rival": name, "not_run": (problem.stderr or str(problem)).strip()}
        row["data"] = data.name
        with (out / "rows.jsonl").open("a") as file:
            print(json.dumps(row | {"machine": machine(("torch", "ray"))}), file=file)
        print(json.dumps(row, indent=1), flush=True)
        rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
