"""Checks of the installed packages and of the audio formats they can read."""

from __future__ import annotations

import sys
import tempfile
from importlib import metadata
from typing import TYPE_CHECKING, BinaryIO

from tuner.doctor import Check, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = "audio-tuner"
# Format and subtype as libsndfile names them; a sample rate in Hz that the codec accepts.
CODECS: dict[str, tuple[str, str | None, int]] = {
    "wav": ("WAV", None, 44100),
    "flac": ("FLAC", None, 44100),
    "ogg": ("OGG", "VORBIS", 44100),
    "mp3": ("MP3", None, 44100),
    "opus": ("OGG", "OPUS", 48000),
}


def check_packages(distribution: str = PACKAGE) -> Check:
    """Check that the packages required by a distribution are installed in the right versions."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in metadata.requires(distribution) or ()]
    except metadata.PackageNotFoundError:
        remedy = "run `make env`, or pip install -c constraints.txt -e ."
        return Check("packages", "FAIL", f"{distribution} is not installed", remedy)
    # Extras are optional.
    required = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = []
    for requirement in required:
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} is {installed}, expected {requirement.specifier}")
    if wrong:
        return Check("packages", "FAIL", "; ".join(wrong), "pip install -c constraints.txt -e .")
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in ("ray", "mlflow", "torch"))
    python = ".".join(map(str, sys.version_info[:3]))
    return Check(
        "packages", "ok", f"Python {python}, {shown}; {len(required)} required packages match"
    )


def check_audio(codecs: Mapping[str, tuple[str, str | None, int]] = CODECS) -> Check:
    """Check that libsndfile reads the usual formats, by writing and reading each in memory."""
    import io

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
        status: Status = "FAIL" if "wav" in broken else "warn"
        remedy = "pip install --force-reinstall soundfile (its wheels include libsndfile)"
        return Check("audio", status, f"{library} lacks {' '.join(broken)}", remedy)
    return Check("audio", "ok", f"{library} reads {' '.join(codecs)}")


def check_m4a() -> Check:
    """Check that AAC in MP4 can be read, by decoding a tone with the code of a build."""
    remedy = f"pip install -c constraints.txt '{PACKAGE}[m4a]'"
    try:
        version = metadata.version("av")
    except metadata.PackageNotFoundError:
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
