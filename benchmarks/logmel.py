"""The log-mel kernel against librosa, torchaudio and the bare FFT: `python -m benchmarks.logmel`.

Ten clips of 3 s at 22.05 kHz from memory to float16, one thread. The bare FFT is one batched
real FFT of all frames, already windowed, by SciPy and by torch; the faster one is the
limit. Other memory is touched before each call, as between two files.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from benchmarks.paired import compare, machine, pin_threads, summary

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from pipelines.features import FeatureSpec

RATE_HZ = 22_050
SIZES = ((1024, 64), (2048, 128))  # n_fft, n_mels
PACKAGES = ("librosa", "numpy", "scipy", "torch", "torchaudio")


def measure(n_fft: int, n_mels: int, rounds: int = 41) -> dict[str, Any]:
    """Measure all variants at one size, and the ratios that have goals."""
    import numpy as np

    from pipelines.features import FeatureSpec
    from pipelines.features.extract import transform

    rng = np.random.default_rng(0)
    clips = (0.1 * rng.standard_normal((10, 3 * RATE_HZ))).astype(np.float32)
    spec = FeatureSpec(sample_rate=RATE_HZ, n_fft=n_fft, n_mels=n_mels)
    peers = {"librosa": _librosa(clips, spec), "torchaudio": _torchaudio(clips, spec)}
    for peer in peers.values():
        _check(peer(), transform(clips, spec))
    limits = _bare_ffts(clips, spec)
    variants = {"ours": lambda: transform(clips, spec), **peers, **limits}
    times = compare(variants, rounds, 5, before=_fill_caches(), clock=time.thread_time)
    limit = min(limits, key=times.median_ms().__getitem__)
    pairs = [("librosa", "ours"), ("torchaudio", "ours"), ("ours", limit)]
    return {"n_fft": n_fft, "n_mels": n_mels, "limit": limit, **summary(times, pairs)}


def _check(theirs: NDArray[np.float16], ours: NDArray[np.float16]) -> None:
    """Check that two variants agree to within one step of float16 at 64 dB."""
    import numpy as np

    apart = np.abs(theirs.astype(np.float32) - ours.astype(np.float32)).max()
    if not apart <= 1 / 16:
        raise SystemExit(f"the variants disagree by {apart} dB; their times mean nothing")


def _fill_caches() -> Callable[[], Any]:
    import numpy as np

    other = np.ones(2**23, np.float32)
    return lambda: np.negative(other, out=other)


def _librosa(clips: NDArray[np.float32], spec: FeatureSpec) -> Callable[[], Any]:
    import librosa
    import numpy as np

    def one(clip: NDArray[np.float32]) -> Any:
        power = librosa.feature.melspectrogram(
            y=clip,
            sr=spec.sample_rate,
            n_fft=spec.n_fft,
            hop_length=spec.hop_length,
            n_mels=spec.n_mels,
            pad_mode="reflect",
            htk=True,
            norm=None,
        )
        return librosa.power_to_db(power, amin=1e-4, top_db=None).astype(np.float16)

    return lambda: np.stack([one(clip) for clip in clips])


def _torchaudio(clips: NDArray[np.float32], spec: FeatureSpec) -> Callable[[], Any]:
    import torch
    import torchaudio

    mel = torchaudio.transforms.MelSpectrogram(
        spec.sample_rate, spec.n_fft, hop_length=spec.hop_length, n_mels=spec.n_mels
    )

    @torch.inference_mode()
    def run() -> Any:
        power = mel(torch.from_numpy(clips)).clamp(min=1e-4)
        return (10.0 * torch.log10(power)).half().numpy()

    return run


def _bare_ffts(clips: NDArray[np.float32], spec: FeatureSpec) -> dict[str, Callable[[], Any]]:
    import numpy as np
    import scipy.fft
    import torch

    edge = spec.n_fft // 2
    padded = np.pad(clips, ((0, 0), (edge, edge)), mode="reflect")
    views = np.lib.stride_tricks.sliding_window_view(padded, spec.n_fft, axis=1)
    window = np.hanning(spec.n_fft + 1)[:-1].astype(np.float32)
    frames = (views[:, :: spec.hop_length] * window).reshape(-1, spec.n_fft)
    tensor = torch.from_numpy(frames)
    return {
        "bare FFT, torch": lambda: torch.fft.rfft(tensor),
        "bare FFT, scipy": lambda: scipy.fft.rfft(frames, workers=1),
    }


def main() -> None:
    """Measure both sizes and print one JSON object."""
    pin_threads()
    import torch

    torch.set_num_threads(1)
    results = [measure(n_fft, n_mels) for n_fft, n_mels in SIZES]
    print(json.dumps({"machine": machine(PACKAGES), "results": results}, indent=1))


if __name__ == "__main__":
    main()
