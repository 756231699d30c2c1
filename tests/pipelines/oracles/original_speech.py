"""Ask the original speech embedding for its activations; writes speech.npz.

It is two TFLite files, which run on LiteRT; this project does not install that. In an environment
of its own, with the wheel of pyopen-wakeword 1.1.0 unpacked into a folder:

    python3.11 -m venv lite && lite/bin/pip install ai-edge-litert==2.3.0
    lite/bin/python tests/pipelines/oracles/original_speech.py FOLDER

The file holds, for each clip, the frames ``CLIP/frames`` float32[m, 32] that the package gives to
the network, and ``CLIP/embedded`` float32[p, 96], one row for each window of 76 frames, 8 frames
apart. Clips are padded as our network does it: 68 hops of silence in
front, and behind up to a whole window.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

RATE_HZ = 16_000
WINDOW_FRAMES, STEP_FRAMES = 76, 8


def clips() -> dict[str, np.ndarray]:
    """Vowel-like pulses under noise, a sweep after silence, and a burst; 3 s, 3 s and 0.5 s."""
    rng = np.random.default_rng(0)
    time_s = np.arange(3 * RATE_HZ) / RATE_HZ
    pulses = sum(np.sin(2 * np.pi * 110 * k * time_s) / k for k in range(1, 30))
    voiced = pulses * np.abs(np.sin(2 * np.pi * 1.5 * time_s))
    sweep = np.sin(2 * np.pi * 100 * 30 ** (time_s / 3) * 3 / np.log(30)) * (time_s > 0.4)
    burst = rng.standard_normal(RATE_HZ // 2) * np.exp(-8 * time_s[: RATE_HZ // 2])
    return {
        "voice": 0.1 * voiced + 0.01 * rng.standard_normal(len(time_s)),
        "sweep": 0.5 * sweep + 1e-3 * rng.standard_normal(len(time_s)),
        "short": 0.2 * burst,
    }


def padded(clip: np.ndarray) -> np.ndarray:
    """Silence so that the first window holds 8 frames of the clip, the last one its end."""
    window, step = 75 * 160 + 512, STEP_FRAMES * 160
    clip = np.concatenate([np.zeros(68 * 160), clip])
    steps = max(0, -(-(len(clip) - window) // step))
    return np.concatenate([clip, np.zeros(window + steps * step - len(clip))])


class Original:
    """Both networks of the package, as ``openwakeword.py`` in it runs them."""

    def __init__(self, folder: Path) -> None:
        lite: Any = importlib.import_module("ai_edge_litert.interpreter")
        models = folder / "pyopen_wakeword" / "models"
        self.mel = lite.Interpreter(str(models / "melspectrogram.tflite"), num_threads=1)
        self.embedding = lite.Interpreter(str(models / "embedding_model.tflite"), num_threads=1)

    def frames(self, clip: np.ndarray) -> np.ndarray:
        """Map float[l] with full scale 1 to float32[m, 32]."""
        return self._run(self.mel, 32768 * clip[None])[0, 0] / np.float32(10) + np.float32(2)

    def embedded(self, frames: np.ndarray) -> np.ndarray:
        """Map float32[m, 32] to float32[p, 96]."""
        starts = range(0, len(frames) - WINDOW_FRAMES + 1, STEP_FRAMES)
        windows = [frames[None, start : start + WINDOW_FRAMES, :, None] for start in starts]
        return np.concatenate([self._run(self.embedding, one)[:, 0, 0] for one in windows])

    @staticmethod
    def _run(model: Any, values: np.ndarray) -> np.ndarray:
        entry = model.get_input_details()[0]["index"]
        model.resize_tensor_input(entry, values.shape, strict=False)
        model.allocate_tensors()
        model.set_tensor(entry, values.astype(np.float32))
        model.invoke()
        found: np.ndarray = model.get_tensor(model.get_output_details()[0]["index"])
        return found


def main(folder: Path) -> None:
    original = Original(folder)
    arrays: dict[str, Any] = {}
    for name, clip in clips().items():
        frames = original.frames(padded(clip))
        arrays |= {f"{name}/frames": frames, f"{name}/embedded": original.embedded(frames)}
    np.savez_compressed(Path(__file__).with_name("speech.npz"), **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
