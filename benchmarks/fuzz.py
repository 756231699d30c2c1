"""Fuzz test of the decoder: decode mutated audio files, count verdicts and escapes.

    python -m benchmarks.fuzz [--seconds 60] [--seed 0] [--sandbox | --walks]

Each case is a small file with bytes flipped, overwritten, removed, doubled or cut off, decoded
from memory, or only walked over (--walks). An escape is any exception but AudioRejected, a sample
that is not finite, or a case that takes longer than two seconds. Without --sandbox a native crash
ends the program. Prints one JSON object; exits with 1 if there were escapes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import soundfile

from pipelines.audio import Decoded, decode_fd
from pipelines.audio.sandbox import Decoder
from pipelines.containers import boxes, flac, mpeg, ogg
from pipelines.containers.chunks import mended
from pipelines.containers.content import Content
from pipelines.containers.signatures import demuxer_of
from pipelines.errors import AudioRejected

RATE_HZ = 22050
SLOW_SECONDS = 2.0

FORMATS: dict[str, dict[str, str]] = {
    "wav": {"format": "WAV"},
    "wav24": {"format": "WAV", "subtype": "PCM_24"},
    "float": {"format": "WAV", "subtype": "FLOAT"},
    "wavex": {"format": "WAVEX"},
    "ulaw": {"format": "WAV", "subtype": "ULAW"},
    "aiff": {"format": "AIFF"},
    "au": {"format": "AU"},
    "caf": {"format": "CAF"},
    "alac": {"format": "CAF", "subtype": "ALAC_16"},
    "w64": {"format": "W64"},
    "rf64": {"format": "RF64"},
    "flac": {"format": "FLAC"},
    "vorbis": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}

Decode = Callable[[int], Decoded]
WALKS = (mpeg.walk, ogg.walk, flac.with_right_length, mended, boxes.is_followed, demuxer_of)
_NOTHING = Decoded(np.zeros(0, np.float32), (), "", 0.0)


@dataclass
class Counts:
    """Results of the cases.

    Attributes:
        verdicts: Number of cases by rejection code, "ok" or "flagged".
        escapes: Cases that ended in anything else, as "seed: reason".
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    escapes: list[str] = field(default_factory=list)


def starting_files(rng: np.random.Generator) -> list[bytes]:
    """A quarter of a second of stereo noise in every format."""
    files = []
    for options in FORMATS.values():
        rate_hz = 48_000 if options.get("subtype") == "OPUS" else 44_100
        noise = rng.uniform(-0.3, 0.3, (rate_hz // 4, 2))
        fd = os.memfd_create("start")
        with soundfile.SoundFile(fd, "w", rate_hz, 2, closefd=False, **options) as file:
            if options["format"] not in ("AU", "W64"):
                file.artist = "someone"
            file.write(noise)
        files.append(os.pread(fd, os.fstat(fd).st_size, 0))
        os.close(fd)
    return files


def walk_over(fd: int) -> Decoded:
    """Run every walk over a file, whatever it is; nothing is decoded."""
    for look in WALKS:
        look(Content(fd))
    return _NOTHING


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """One to eight changes; half of them in the first 512 bytes, where the headers are."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        if len(changed) < 16:
            break
        reach = min(len(changed), 512) if rng.random() < 0.5 else len(changed)
        at = int(rng.integers(reach))
        kind = int(rng.integers(5))
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at : at + 4] = rng.choice([0, 1, 0x7F, 0x80, 0xFF], 4).astype("u1").tobytes()
        elif kind == 2:
            del changed[at : at + int(rng.integers(1, 64))]
        elif kind == 3:
            changed[at:at] = changed[at : at + int(rng.integers(1, 64))]
        else:
            del changed[max(at, 8) :]
    return bytes(changed)


def run_case(decode: Decode, content: bytes, seed: int, counts: Counts) -> None:
    """Decode one file from memory and count the result."""
    fd = os.memfd_create("case")
    begin = time.process_time()
    try:
        os.write(fd, content)
        sound = decode(fd)
        if not np.isfinite(sound.samples).all():
            counts.escapes.append(f"{seed}: samples are not finite")
        counts.verdicts["flagged" if sound.flags else "ok"] += 1
    except AudioRejected as error:
        counts.verdicts[error.code] += 1
        if "the decoder" in error.detail:  # crashed, hung or failed, says the sandbox
            counts.escapes.append(f"{seed}: {error}")
    except Exception as error:  # noqa: BLE001  # the test looks for escapes
        counts.escapes.append(f"{seed}: {type(error).__name__}: {error}")
    finally:
        os.close(fd)
    if time.process_time() - begin > SLOW_SECONDS:
        counts.escapes.append(f"{seed}: took more than {SLOW_SECONDS} s")


def fuzz(decode: Decode, seeds: range, end: float) -> Counts:
    """Run cases until the seeds are used up or `time.monotonic()` reaches `end`."""
    starts = starting_files(np.random.default_rng(0))
    counts = Counts()
    for seed in seeds:
        if time.monotonic() > end:
            break
        rng = np.random.default_rng(seed)
        run_case(decode, mutate(starts[seed % len(starts)], rng), seed, counts)
    return counts


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case")
    parser.add_argument("--sandbox", action="store_true", help="decode in the child process")
    parser.add_argument("--walks", action="store_true", help="walk over containers only")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + 10**9)
    begin = time.monotonic()
    with Decoder() as decoder:
        decode: Decode = lambda fd: (  # noqa: E731
            decoder.decode(fd, "a", RATE_HZ) if options.sandbox else decode_fd(fd, "a", RATE_HZ)
        )
        counts = fuzz(walk_over if options.walks else decode, seeds, begin + options.seconds)
    num_cases = counts.verdicts.total()
    result = {
        "cases": num_cases,
        "cases_per_second": round(num_cases / (time.monotonic() - begin), 1),
        "escapes": counts.escapes[:20],
        "num_escapes": len(counts.escapes),
        "verdicts": dict(counts.verdicts.most_common()),
    }
    print(json.dumps(result, indent=1))
    return 1 if counts.escapes else 0


if __name__ == "__main__":
    sys.exit(main())
