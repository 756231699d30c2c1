"""Decoding against a bare reader, and the sandbox against decoding: `python -m benchmarks.decode`.

Files of 30 s are converted from stereo at 44.1 kHz to mono at 22.05 kHz. The bare reader checks
nothing: soundfile.read, a weighted sum of the channels, soxr.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.paired import compare, machine, pin_threads, summary

SOURCE_HZ = 44_100
RATE_HZ = 22_050
SECONDS = 30
SUFFIXES = ("wav", "mp3", "flac", "ogg")
PACKAGES = ("numpy", "soundfile", "soxr", "xxhash")


def write_file(path: Path) -> None:
    """Write coloured noise with a tone in it; the suffix selects the format."""
    import numpy as np
    import soundfile

    rng = np.random.default_rng(0)
    noise = rng.standard_normal((SECONDS * SOURCE_HZ, 2)).cumsum(axis=0)
    noise -= np.stack([np.convolve(noise[:, i], np.ones(200) / 200, "same") for i in (0, 1)], 1)
    time_s = np.arange(len(noise))[:, None] / SOURCE_HZ
    tone = np.sin(2 * np.pi * 440 * time_s)
    soundfile.write(path, 0.2 * noise / noise.std() / 3 + 0.2 * tone, SOURCE_HZ)


def measure(path: Path, rounds: int = 41) -> dict[str, Any]:
    """Measure times and ratios for one file."""
    import numpy as np
    import soundfile
    import soxr

    from pipelines.audio import decode
    from pipelines.audio.sandbox import Decoder

    weights = np.array([0.5, 0.5], np.float32)

    def bare() -> Any:
        stereo, rate_hz = soundfile.read(path, dtype="float32")
        return soxr.resample(stereo @ weights, rate_hz, RATE_HZ, "HQ")

    with Decoder() as decoder:
        variants = {
            "bare": bare,
            "decode": lambda: decode(path, RATE_HZ),
            "sandbox": lambda: decoder.decode_path(path, RATE_HZ),
        }
        apart = np.abs(bare() - decode(path, RATE_HZ).samples).max()
        if not apart < 1e-5:
            raise SystemExit(f"the variants disagree by {apart}; their times mean nothing")
        times = compare(variants, rounds, warmup=5)
    return summary(times, [("decode", "bare"), ("sandbox", "decode"), ("sandbox", "bare")])


def main() -> None:
    """Measure every format and print one JSON object."""
    pin_threads()
    result: dict[str, Any] = {"machine": machine(PACKAGES)}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in SUFFIXES:
            path = Path(folder) / f"a.{suffix}"
            write_file(path)
            result[suffix] = measure(path)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
