"""Checks of installed software: packages, torch, torchaudio, torchvision, GPUs, audio formats."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

from tuner.doctor import Check

Findings = dict[str, dict[str, Any]]

PACKAGE = "audio-tuner"
FAMILY = ("torch", "torchaudio", "torchvision")
IMPORT_TIMEOUT_SECONDS = 120.0  # the first import after an installation reads gigabytes
# Runs in its own process, which a mismatched pair may crash; prints a line of JSON per finding.
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
# Format and subtype as libsndfile names them; a sample rate in Hz that the codec accepts.
CODECS: dict[str, tuple[str, str | None, int]] = {
    "wav": ("WAV", None, 44100),
    "flac": ("FLAC", None, 44100),
    "ogg": ("OGG", "VORBIS", 44100),
    "mp3": ("MP3", None, 44100),
    "opus": ("OGG", "OPUS", 48000),
}


def installed_version(name: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_packages(distribution: str = PACKAGE) -> Check:
    """Check that the packages required by a distribution are installed in the right versions."""
    from packaging.requirements import Requirement

    if installed_version(distribution) is None:
        remedy = "run `make env`, or pip install -c constraints.txt -e ."
        return Check("packages", "FAIL", f"{distribution} is not installed", remedy)
    requirements = [Requirement(text) for text in metadata.requires(distribution) or ()]
    # Extras are optional.
    required = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = []
    for requirement in required:
        installed = installed_version(requirement.name)
        if installed is None:
            wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} is {installed}, expected {requirement.specifier}")
    if wrong:
        return Check("packages", "FAIL", "; ".join(wrong), "pip install -c constraints.txt -e .")
    python = ".".join(map(str, sys.version_info[:3]))
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in ("ray", "mlflow", "torch"))
    detail = f"Python {python}, {shown}; {len(required)} required packages match"
    return Check("packages", "ok", detail)


def probe(environment: Mapping[str, str] | None = None) -> Findings:
    """Import torch, torchaudio and torchvision in another process; return findings by name."""
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


def check_torch(findings: Findings, constraints: Path) -> Check:
    """Check that torch, torchaudio and torchvision load and are of one release."""
    wanted = "torch==2.11.* torchaudio==2.11.* torchvision==0.26.*"
    if constraints.is_file():
        pins = dict(line.split("==") for line in constraints.read_text().split())
        wanted = " ".join(f"{name}=={pins[name]}" for name in FAMILY)
    remedy = f"reinstall all three from the default index: pip install --force-reinstall {wanted}"
    torch = findings.get("torch", {"error": "no answer"})
    if "error" in torch:
        return Check("torch", "FAIL", f"torch does not load: {torch['error']}", remedy)
    for name in FAMILY[1:]:
        error = findings.get(name, {"error": "no answer"}).get("error")
        if error is None:
            continue
        fault = "does not load with"
        if torch["cuda"] is None and "No module named" not in error:
            fault = "is a CUDA build and does not load with CPU-only"
        version = installed_version(name) or "(not installed)"
        detail = f"{name} {version} {fault} torch {torch['version']}"
        return Check("torch", "FAIL", f"{detail} ({error.strip().splitlines()[0]})", remedy)
    versions = {name: findings[name]["version"] for name in FAMILY}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    numbers = [
        tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        for version in versions.values()
    ]
    major, minor = numbers[0]
    # torchaudio shares torch's numbers; torchvision was at 0.15 when torch was at 2.0.
    if numbers != [(major, minor), (major, minor), (0, minor + 15)]:
        return Check("torch", "FAIL", f"{shown} come from different releases", remedy)
    return Check("torch", "ok", shown)


def check_gpu(findings: Findings, driver: Path = Path("/proc/driver/nvidia/version")) -> Check:
    """Report the GPUs that torch can use."""
    gpus = findings.get("devices", {}).get("gpus", [])
    if gpus:
        return Check("gpu", "ok", f"{len(gpus)} CUDA: {', '.join(gpus)}")
    if driver.exists():
        remedy = "update the NVIDIA driver, or reinstall torch as the check `torch` says"
        detail = "an NVIDIA driver is installed, but torch sees no device"
        return Check("gpu", "warn", detail, remedy)
    return Check("gpu", "ok", "none; trials run on the CPU")


def check_bf16(findings: Findings) -> Check:
    """Report whether the GPU or the CPU multiplies bfloat16 in hardware."""
    devices = findings.get("devices", {})
    if devices.get("gpu_bf16"):
        return Check("bfloat16", "ok", "native on the GPU")
    if devices.get("cpu_bf16"):
        return Check("bfloat16", "ok", "native on the CPU")
    return Check("bfloat16", "ok", "not native; `train.precision: auto` computes in float32")


def check_audio(codecs: Mapping[str, tuple[str, str | None, int]] = CODECS) -> Check:
    """Check that libsndfile reads the usual formats, by writing and reading each in memory."""
    import numpy as np
    import soundfile

    tone = np.sin(np.arange(4800) / 20).astype(np.float32)
    broken = []
    for name, (kind, subtype, rate) in codecs.items():
        file = io.BytesIO()
        try:
            soundfile.write(file, tone, rate, format=kind, subtype=subtype)
            file.seek(0)
            soundfile.read(file)
        except (soundfile.LibsndfileError, ValueError):
            broken.append(name)
    library = f"libsndfile {soundfile.__libsndfile_version__}"
    if broken:
        remedy = "pip install --force-reinstall soundfile (its wheels include libsndfile)"
        detail = f"{library} lacks {' '.join(broken)}"
        return Check("audio", "FAIL" if "wav" in broken else "warn", detail, remedy)
    return Check("audio", "ok", f"{library} reads {' '.join(codecs)}")


def check_m4a() -> Check:
    """Check that AAC in MP4 can be read, by decoding a tone with the code of a build."""
    remedy = f"pip install -c constraints.txt '{PACKAGE}[m4a]'"
    version = installed_version("av")
    if version is None:
        detail = "not read (optional PyAV is not installed); M4A, AAC and WMA files are rejected"
        return Check("m4a", "ok", detail, remedy)
    from pipelines.audio import decode_fd
    from pipelines.errors import AudioRejected

    with tempfile.TemporaryFile() as file:
        try:
            _write_m4a(file)
            decode_fd(file.fileno(), "tone.m4a", 22050)
        except (ImportError, AudioRejected, OSError, ValueError) as error:
            return Check("m4a", "warn", f"PyAV {version} cannot read it: {error}", remedy)
    return Check("m4a", "ok", f"PyAV {version} reads it")


def _write_m4a(file: BinaryIO) -> None:
    """Write a tone of one second as AAC in MP4."""
    import av
    import numpy as np

    tone = np.sin(np.arange(22050) / 20).astype(np.float32)[np.newaxis]
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=22050, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate = 22050
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    file.flush()


def check_decoder() -> Check:
    """Report what this kernel refuses a faulty or hostile codec, by confining a process."""
    program = "from pipelines.audio.confinement import confine; print(*confine(), sep=' and ')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=IMPORT_TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    if holds := done.stdout.strip():
        detail = f"files are decoded in a process confined by {holds}"
        return Check("decoder", "ok" if "seccomp" in holds else "warn", detail)
    detail = "the kernel has neither Landlock nor seccomp; a hostile file could use the network"
    return Check("decoder", "warn", detail, "build from files that you trust")
