"""Whether torch, torchaudio and torchvision load, belong together and see the hardware."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.doctor.check import Check

if TYPE_CHECKING:
    from collections.abc import Mapping

Answers = dict[str, dict[str, Any]]

FAMILY = ("torch", "torchaudio", "torchvision")
IMPORT_TIMEOUT_SECONDS = 120.0  # the first import after an installation reads gigabytes
# In a process of its own, as a pair that does not fit may end it; a line of JSON a finding.
TORCH_PROBE = """
import importlib, json, sys
def say(**found): print(json.dumps(found), flush=True)
def load(name):
    try:
        return importlib.import_module(name)
    except Exception as error:
        say(name=name, error=f"{type(error).__name__}: {error}")
torch = load("torch")
if torch is None:
    sys.exit()
say(name="torch", version=torch.__version__, cuda=torch.version.cuda)
for name in ("torchaudio", "torchvision"):
    module = load(name)
    if module is not None:
        say(name=name, version=module.__version__)
cpu = torch.cpu.get_capabilities()
gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
say(name="devices", gpus=[torch.cuda.get_device_name(i) for i in gpus],
    gpu_bf16=bool(gpus) and torch.cuda.is_bf16_supported(including_emulation=False),
    cpu_bf16=bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16")))
"""


def probe(environment: Mapping[str, str] | None = None) -> Answers:
    """What importing torch and its companions in another process gave, by name."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", TORCH_PROBE],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=IMPORT_TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"torch": {"error": f"no answer within {IMPORT_TIMEOUT_SECONDS:.0f} seconds"}}
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    answers: Answers = {line.pop("name"): line for line in lines}
    if done.returncode != 0:
        missing = next((name for name in FAMILY if name not in answers), "torch")
        answers[missing] = {"error": f"the import ended the process ({done.returncode})"}
    return answers


def reinstall_command(constraints: Path) -> str:
    """How to install torch, torchaudio and torchvision anew, as one family."""
    wanted = "torch==2.11.* torchaudio==2.11.* torchvision==0.26.*"
    if constraints.is_file():
        pins = dict(line.split("==") for line in constraints.read_text().split())
        wanted = " ".join(f"{name}=={pins[name]}" for name in FAMILY)
    return f"pip install --force-reinstall {wanted}  (all three from the default index)"


def check_torch(answers: Answers, constraints: Path) -> Check:
    """Whether torch, torchaudio and torchvision load, and belong together."""
    remedy = f"reinstall all three from the default index: {reinstall_command(constraints)}"
    torch = answers.get("torch", {"error": "no answer"})
    if "error" in torch:
        return Check("torch", "FAIL", f"torch does not load: {torch['error']}", remedy)
    for name in FAMILY[1:]:
        found = answers.get(name, {"error": "no answer"})
        if "error" not in found:
            continue
        beside = f"{name} {_version(name)} does not load beside torch {torch['version']}"
        if torch["cuda"] is None and "No module named" not in found["error"]:
            beside = (
                f"{name} {_version(name)} is a CUDA build and does not load beside CPU-only "
                f"torch {torch['version']}"
            )
        first = found["error"].strip().splitlines()[0]
        return Check("torch", "FAIL", f"{beside} ({first})", remedy)
    versions = {name: answers[name]["version"] for name in FAMILY}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    major, minor = _numbers(versions["torch"])
    # torchaudio is numbered as torch is; torchvision began 15 minor releases before torch 2.0
    expected = ((major, minor), (major, minor), (0, minor + 15))
    if tuple(_numbers(version) for version in versions.values()) != expected:
        return Check("torch", "FAIL", f"{shown} are of different releases", remedy)
    return Check("torch", "ok", shown)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def check_gpu(answers: Answers, driver: Path = Path("/proc/driver/nvidia/version")) -> Check:
    """Which GPUs torch can use."""
    gpus = answers.get("devices", {}).get("gpus", [])
    if gpus:
        return Check("gpu", "ok", f"{len(gpus)} CUDA: {', '.join(gpus)}")
    if driver.exists():
        remedy = "update the NVIDIA driver, or reinstall torch as `torch` above says"
        return Check("gpu", "warn", "there is an NVIDIA driver, but torch sees no device", remedy)
    return Check("gpu", "ok", "none; trials run on the CPU")


def check_bf16(answers: Answers) -> Check:
    """Whether bfloat16 is multiplied in hardware, on GPU or CPU."""
    found = answers.get("devices", {})
    if found.get("gpu_bf16"):
        return Check("bfloat16", "ok", "native on the GPU")
    if found.get("cpu_bf16"):
        return Check("bfloat16", "ok", "native on the CPU")
    return Check("bfloat16", "ok", "not native; `train.precision: auto` computes in float32")
