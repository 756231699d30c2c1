"""Ask the original networks of the package musicnn for their activations; writes musicnn.npz.

They run on TensorFlow, which this project does not install. In an environment of its own, with
the wheel of musicnn 0.1.0 unpacked into a folder:

    python3.11 -m venv tf && tf/bin/pip install tensorflow-cpu==2.15.1 "librosa<0.11" "numpy<2"
    tf/bin/python tests/pipelines/oracles/original_musicnn.py FOLDER

The file holds, for three clips, the spectrograms that the networks were given (``frames``,
float16[3, 187, 96]) and ``NETWORK/LAYER`` float32[3, w]. ``NETWORK/short/LAYER`` is for the first
61 frames of the first clip. Layers with an axis of time are averaged over it; those of the VGGs
are the means and then the maxima over time and frequency.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

RATE_HZ, FRAMES, SHORT_FRAMES, BANDS = 16_000, 187, 61, 96
NETWORKS = ("MSD_musicnn", "MTT_musicnn", "MSD_vgg", "MTT_vgg")
MUSICNN_LAYERS = (
    "logits", "timbral", "temporal", "cnn1", "cnn2", "cnn3",
    "mean_pool", "max_pool", "penultimate",
)  # fmt: skip


def clips() -> list[np.ndarray]:
    """Chords over a pulse, bursts of noise, and a sweep; 3 s each."""
    rng = np.random.default_rng(0)
    time_s = np.arange(3 * RATE_HZ) / RATE_HZ
    chord = np.zeros_like(time_s)
    for bar, root_hz in enumerate((220.0, 174.6, 261.6)):
        inside = (time_s >= bar) & (time_s < bar + 1)
        for ratio in (1.0, 1.25, 1.5, 2.0):
            chord += inside * np.sin(2 * np.pi * root_hz * ratio * time_s) / 8
    pulse = np.sin(2 * np.pi * 60 * time_s) * np.exp(-20 * (time_s % 0.5))
    bursts = rng.standard_normal(len(time_s)) * np.exp(-12 * (time_s % 0.375)) / 6
    sweep = 0.5 * np.sin(2 * np.pi * 100 * 60 ** (time_s / 3) * 3 / np.log(60))
    return [chord + 0.4 * pulse, bursts, sweep + 1e-3 * rng.standard_normal(len(time_s))]


def spectrogram(clip: np.ndarray) -> np.ndarray:
    """The spectrogram of the package, float16[187, 96]."""
    librosa: Any = importlib.import_module("librosa")
    power = librosa.feature.melspectrogram(
        y=clip, sr=RATE_HZ, hop_length=256, n_fft=512, n_mels=BANDS
    )
    return np.log10(10_000 * power.T[:FRAMES] + 1).astype(np.float16)


def activations(network: str, frames: np.ndarray, wheel: Path) -> dict[str, np.ndarray]:
    """Run a network on float[n, m, 96]."""
    tf: Any = importlib.import_module("tensorflow")
    models: Any = importlib.import_module("musicnn.models")
    tf.compat.v1.disable_eager_execution()
    tf.compat.v1.reset_default_graph()
    x = tf.compat.v1.placeholder(tf.float32, [None, frames.shape[1], BANDS])
    found = models.define_model(x, tf.constant(False), network, 50)
    with tf.compat.v1.Session() as session:
        tf.compat.v1.train.Saver().restore(session, f"{wheel}/musicnn/{network}/")
        values = session.run(found, {x: frames.astype(np.float32)})
    tags = 1 / (1 + np.exp(-values[0]))
    if network.endswith("vgg"):
        pools = [np.concatenate([v.mean((1, 2)), v.max((1, 2))], axis=1) for v in values[1:]]
        return {"tags": tags, **{f"pool{i + 1}": pool for i, pool in enumerate(pools)}}
    layers = dict(zip(MUSICNN_LAYERS, values, strict=True))
    for name in ("timbral", "temporal", "cnn1", "cnn2", "cnn3"):
        layers[name] = layers[name].mean(1).reshape(len(frames), -1)
    del layers["logits"]
    return layers | {"tags": tags}


def main(wheel: Path) -> None:
    sys.path.insert(0, str(wheel))
    frames = np.stack([spectrogram(clip) for clip in clips()])
    arrays: dict[str, Any] = {"frames": frames}
    for network in NETWORKS:
        found = activations(network, frames, wheel)
        arrays |= {f"{network}/{layer}": values for layer, values in found.items()}
        if network.endswith("musicnn"):
            found = activations(network, frames[:1, :SHORT_FRAMES], wheel)
            arrays |= {f"{network}/short/{layer}": values for layer, values in found.items()}
    np.savez_compressed(Path(__file__).with_name("musicnn.npz"), **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
