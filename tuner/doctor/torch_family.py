"""Checks that torch, torchaudio and torchvision load, match and see the hardware."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.doctor import Check

if TYPE_CHECKING:
    from collections.abc import Mapping

Findings = dict[str, dict[str, Any]]

FAMILY = ("torch", "torchaudio", "torchvision")
IMPORT_TIMEOUT_SECONDS = 120.0  # the first import after an installation reads gigabytes
# Runs in its own process, which a mismatched pair may crash; prints one line of JSON a finding.
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


def probe(environment: Mapping[str, str] | None = None) -> Findings:
    """Import torch and its companions in another process; return what it found, by name."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", TORCH_PROBE],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=IMPORT_TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"torch": {"error": f"no answer within {IMPORT_TIMEOUT_SECONDS:.0f} seconds"}}
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    findings: Findings = {line.pop("name"): line for line in lines}
    if done.returncode != 0:
        missing = next((name for name in FAMILY if name not in findings), "torch")
        findings[missing] = {"error": f"the import ended the process ({done.returncode})"}
    return findings


def reinstall_command(constraints: Path) -> str:
    """Return the command that reinstalls torch, torchaudio and torchvision together."""
    wanted = "torch==2.11.* torchaudio==2.11.* torchvision==0.26.*"
    if constraints.is_file():
        pins = dict(line.split("==") for line in constraints.read_text().split())
        wanted = " ".join(f"{name}=={pins[name]}" for name in FAMILY)
    return f"pip install --force-reinstall {wanted}  (all three from the default index)"


def check_torch(findings: Findings, constraints: Path) -> Check:
    """Check that torch, torchaudio and torchvision load and are of one release."""
    remedy = f"reinstall all three from the default index: {reinstall_command(constraints)}"
    torch = findings.get("torch", {"error": "no answer"})
    if "error" in torch:
        return Check("torch", "FAIL", f"torch does not load: {torch['error']}", remedy)
    for name in FAMILY[1:]:
        found = findings.get(name, {"error": "no answer"})
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
    versions = {name: findings[name]["version"] for name in FAMILY}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    major, minor = _numbers(versions["torch"])
    # torchaudio shares torch's numbers; torchvision was at 0.15 when torch was at 2.0.
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


def check_gpu(findings: Findings, driver: Path = Path("/proc/driver/nvidia/version")) -> Check:
    """Report the GPUs that torch can use."""
    gpus = findings.get("devices", {}).get("gpus", [])
    if gpus:
        return Check("gpu", "ok", f"{len(gpus)} CUDA: {', '.join(gpus)}")
    if driver.exists():
        remedy = (
            "update the NVIDIA driver, or reinstall torch with the command of the check `torch`"
        )
        return Check(
            "gpu", "warn", "an NVIDIA driver is installed, but torch sees no device", remedy
        )
    return Check("gpu", "ok", "none; trials run on the CPU")


def check_bf16(findings: Findings) -> Check:
    """Report whether the GPU or the CPU multiplies bfloat16 in hardware."""
    devices = findings.get("devices", {})
    if devices.get("gpu_bf16"):
        return Check("bfloat16", "ok", "native on the GPU")
    if devices.get("cpu_bf16"):
        return Check("bfloat16", "ok", "native on the CPU")
    return Check("bfloat16", "ok", "not native; `train.precision: auto` computes in float32")
