"""Whether the installed packages and audio formats are those that the program needs."""

from __future__ import annotations

import sys
import tempfile
from importlib import metadata
from typing import TYPE_CHECKING, BinaryIO

from tuner.doctor.check import Check, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = "audio-tuner"
# format and subtype of libsndfile; sample rate in Hz that the codec takes
CODECS: dict[str, tuple[str, str | None, int]] = {
    "wav": ("WAV", None, 44100),
    "flac": ("FLAC", None, 44100),
    "ogg": ("OGG", "VORBIS", 44100),
    "mp3": ("MP3", None, 44100),
    "opus": ("OGG", "OPUS", 48000),
}


def check_packages(distribution: str = PACKAGE) -> Check:
    """Whether the installed packages are those that a distribution asks for."""
    from packaging.requirements import Requirement

    try:
        every = [Requirement(text) for text in metadata.requires(distribution) or ()]
    except metadata.PackageNotFoundError:
        remedy = "run `make env`, or pip install -c constraints.txt -e ."
        return Check("packages", "FAIL", f"{distribution} is not installed here", remedy)
    # without those of the extras
    asked = [r for r in every if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = []
    for requirement in asked:
        try:
            have = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(have, prereleases=True):
            wrong.append(f"{requirement.name} is {have}, wanted is {requirement.specifier}")
    if wrong:
        return Check("packages", "FAIL", "; ".join(wrong), "pip install -c constraints.txt -e .")
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in ("ray", "mlflow", "torch"))
    python = ".".join(map(str, sys.version_info[:3]))
    return Check("packages", "ok", f"Python {python}, {shown}; {len(asked)} as asked for")


def check_audio(codecs: Mapping[str, tuple[str, str | None, int]] = CODECS) -> Check:
    """Whether libsndfile reads the usual formats: each is written and read in memory."""
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
        remedy = "pip install --force-reinstall soundfile, whose wheels bring libsndfile"
        return Check("audio", status, f"{library} lacks {' '.join(broken)}", remedy)
    return Check("audio", "ok", f"{library} reads {' '.join(codecs)}")


def check_m4a() -> Check:
    """Whether AAC in MP4 can be read: a tone is written and decoded as a build would do it."""
    remedy = f"pip install -c constraints.txt '{PACKAGE}[m4a]'"
    try:
        version = metadata.version("av")
    except metadata.PackageNotFoundError:
        detail = "not read (PyAV is not installed, which is optional): M4A, AAC and WMA files are"
        return Check("m4a", "ok", f"{detail} left out with a reason", remedy)
    from pipelines.audio import decode_fd
    from pipelines.errors import AudioRejected

    with tempfile.TemporaryFile() as file:
        try:
            _write_m4a(file)
            decode_fd(file.fileno(), "tone.m4a", 22050)
        except (ImportError, AudioRejected, OSError, ValueError) as error:
            return Check("m4a", "warn", f"PyAV {version} does not read it: {error}", remedy)
    return Check("m4a", "ok", f"PyAV {version} reads it")


def _write_m4a(file: BinaryIO) -> None:
    """A tone of a second as AAC in MP4."""
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
