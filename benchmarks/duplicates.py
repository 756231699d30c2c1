"""Recall and speed of the duplicate search: `python -m benchmarks.duplicates`."""

from __future__ import annotations

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import soundfile

from benchmarks.planted_copies import COPIES, at_rate
from pipelines.demo import write_demo
from pipelines.duplicates import acoustic_fingerprint, near_pairs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    Words = NDArray[np.uint32]

_RATE_HZ = 22050
_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3"})
_HEADER = 3


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Folder with audio.")
@click.option("--planted", default=60, show_default=True, help="Number of tracks to copy.")
@click.option(
    "--tracks", default=60, show_default=True, help="Size of the demo dataset used without --data."
)
@click.option("--seed", default=0, show_default=True, help="Seed for everything random.")
def main(data: Path | None, planted: int, tracks: int, seed: int) -> None:
    """Plant copies of tracks, search for them, and print recall and cost as JSON."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = data if data else write_demo(Path(scratch), tracks, seed).parent
        files = sorted(file for file in folder.rglob("*") if file.suffix in _SUFFIXES)
        originals, copies = _signatures(files, planted, np.random.default_rng(seed))
    print(
        json.dumps(
            {
                "tracks": len(originals),
                **_quality(originals, copies),
                "signature": _signature_cost(seed),
                "search": [_search_cost(list(originals.values()), n, seed) for n in (1000, 10000)],
            },
            indent=2,
        )
    )


def _signatures(
    files: list[Path], planted: int, rng: np.random.Generator
) -> tuple[dict[str, Words], dict[tuple[str, str], Words]]:
    """Return the acoustic fingerprints of all tracks, and those of copies by (track, kind)."""
    originals: dict[str, Words] = {}
    copies: dict[tuple[str, str], Words] = {}
    every = max(1, len(files) // planted)
    for number, file in enumerate(files):
        try:
            samples, rate_hz = soundfile.read(file, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            continue
        sound = samples.mean(axis=1)
        if not sound.any():
            continue
        originals[str(file)] = acoustic_fingerprint(at_rate(sound, rate_hz, _RATE_HZ), _RATE_HZ)
        for kind, make in COPIES.items() if number % every == 0 else ():
            copy, copy_hz = make(sound, rate_hz, rng)
            if copy.size:
                words = acoustic_fingerprint(at_rate(copy, copy_hz, _RATE_HZ), _RATE_HZ)
                copies[str(file), kind] = words
    return originals, copies


def _quality(
    originals: Mapping[str, Words], copies: Mapping[tuple[str, str], Words]
) -> dict[str, Any]:
    """Measure recall for each kind of copy, and pairs found that were not planted."""
    start = time.perf_counter()
    among = set(near_pairs(originals))
    seconds = time.perf_counter() - start
    recall, wrong, num_pairs = {}, 0, 0
    for kind in COPIES:
        planted = {f"{track}|copy": words for (track, k), words in copies.items() if k == kind}
        found = near_pairs({**originals, **planted})
        sources = [tuple(name.removesuffix("|copy") for name in pair) for pair in found]
        hits = sum(a == b for a, b in sources)
        recall[kind] = {"planted": len(planted), "recall": hits / max(1, len(planted))}
        wrong += sum(a != b and (min(a, b), max(a, b)) not in among for a, b in sources)
        num_pairs += len(planted) * (len(originals) - 1)
    return {
        "recall": recall,
        "pairs_among_originals": [list(pair) for pair in sorted(among)],
        "originals_search_seconds": round(seconds, 2),
        "false_positives_per_pair": wrong / max(1, num_pairs),
    }


def _signature_cost(seed: int) -> dict[str, float]:
    """Measure the acoustic fingerprint of 30 s of noise: bytes, and milliseconds (best of 20)."""
    noise = np.random.default_rng(seed).normal(0, 0.1, 30 * _RATE_HZ).astype(np.float32)
    words, times = acoustic_fingerprint(noise, _RATE_HZ), []
    for _ in range(20):
        start = time.perf_counter()
        acoustic_fingerprint(noise, _RATE_HZ)
        times.append(time.perf_counter() - start)
    return {"ms_30s": round(1e3 * min(times), 2), "bytes_30s": words.nbytes}


def _search_cost(pool: list[Words], num_tracks: int, seed: int) -> dict[str, Any]:
    """Measure a search among spliced tracks of 30 s, with a copy of every 100th.

    A track is spliced from real fingerprints, in pieces of 2 to 4 s, with its bands rotated by a
    random number and one in 16 of the unclear signs flipped. That gives the statistics of real
    sound, and many tracks with something in common. A copy starts up to 1.9 s later and has
    one sign in eight flipped.
    """
    rng = np.random.default_rng(seed)
    tracks = {f"{i:07d}": _spliced(pool, rng) for i in range(num_tracks)}
    copied = list(tracks)[::100]
    tracks.update({f"{name}|copy": _flipped(tracks[name], rng) for name in copied})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    found = set(near_pairs(tracks))
    seconds = time.perf_counter() - start
    planted = {(name, f"{name}|copy") for name in copied}
    return {
        "tracks": num_tracks,
        "seconds": round(seconds, 1),
        "recall": len(found & planted) / len(planted),
        "wrong": len(found - planted),
        "more_memory_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024,
    }


def _spliced(pool: list[Words], rng: np.random.Generator, num_frames: int = 938) -> Words:
    parts: list[Words] = []
    while sum(part.shape[1] for part in parts) < num_frames:
        words = pool[rng.integers(len(pool))]
        frames = words[_HEADER : _HEADER + 2 * int(words[0])].reshape(2, -1)
        start = int(rng.integers(max(1, frames.shape[1] - 62)))
        parts.append(frames[:, start : start + int(rng.integers(62, 125))])
    signs, clear = np.concatenate(parts, axis=1)[:, :num_frames]
    turn = np.uint32(rng.integers(1, 32))
    back = np.uint32(32) - turn
    signs, clear = (words << turn | words >> back for words in (signs, clear))
    return _framed(signs ^ (_rare_bits(rng, num_frames, 4) & ~clear), clear)


def _flipped(words: Words, rng: np.random.Generator) -> Words:
    signs, clear = words[_HEADER:].reshape(2, -1)[:, int(rng.integers(60)) :]
    return _framed(signs ^ _rare_bits(rng, len(signs), 3), clear)


def _framed(signs: Words, clear: Words) -> Words:
    header = np.array([len(signs), 0, 0], dtype=np.uint32)
    return np.concatenate([header, signs, clear])


def _rare_bits(rng: np.random.Generator, count: int, halvings: int) -> Words:
    drawn = rng.integers(2**32, size=(halvings, count), dtype=np.uint32)
    return np.asarray(np.bitwise_and.reduce(drawn), np.uint32)


if __name__ == "__main__":
    main()
