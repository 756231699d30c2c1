"""Recordings for benchmarks: coloured noise with notes in it, no two alike, quick to write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import soundfile

if TYPE_CHECKING:
    from pathlib import Path

RATE_HZ = 44_100


def write_recordings(
    folder: Path, num_files: int, seconds: float, suffix: str, num_classes: int = 4
) -> None:
    """Write stereo files into a folder for each class, unless they exist.

    Args:
        folder: Folder for the class folders.
        num_files: Number of files in all classes.
        seconds: Length of each file.
        suffix: Format: `wav` (16 bits), `mp3`, `flac` or `ogg`.
        num_classes: Number of class folders.
    """
    done = folder / "done"
    wanted = f"{num_files} {seconds} {suffix} {num_classes}"
    if done.is_file() and done.read_text() == wanted:
        return
    rng = np.random.default_rng(0)
    length = round(seconds * RATE_HZ)
    # one long stretch of noise from which each file takes a piece of its own
    noise = np.convolve(rng.standard_normal(length * 8).astype(np.float32), np.hanning(24), "same")
    time_s = np.arange(length, dtype=np.float32) / RATE_HZ
    for number in range(num_files):
        rng = np.random.default_rng([1, number])
        starts = rng.integers(0, length * 7, 2)
        stereo = np.stack([noise[start : start + length] for start in starts], axis=1)
        for _ in range(6):
            pitch_hz, onset = 110 * 2 ** rng.uniform(0, 5), rng.uniform(0, 0.8)
            note = np.sin(2 * np.pi * pitch_hz * time_s) * np.exp(
                -2 * (time_s / seconds - onset) ** 2
            )
            stereo += (rng.uniform(0.2, 1.0) * note)[:, np.newaxis]
        path = folder / f"class {number % num_classes}" / f"{number:05d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.5 * stereo / np.abs(stereo).max(), RATE_HZ)
    done.write_text(wanted)
