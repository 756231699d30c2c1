"""Small recordings that several test files of the pipelines share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder per class of noise files, each a recording of its own."""

    def make(
        labels: tuple[str, ...] = ("hum", "hiss"),
        per_class: int = 6,
        seconds: float = 1.0,
        rate: int = 8000,
        name: str = "data",
    ) -> Path:
        root = tmp_path / name
        for number, label in enumerate(labels):
            for take in range(per_class):
                rng = np.random.default_rng([number, take])
                noise = rng.standard_normal(round(seconds * rate))
                # a random colour, so that no two takes sound alike
                kernel = rng.standard_normal(16) * np.hanning(16)
                sound = np.convolve(noise, kernel, "same")
                path = root / label / f"take {take}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, 0.5 * sound / np.abs(sound).max(), rate)
        return root

    return make
