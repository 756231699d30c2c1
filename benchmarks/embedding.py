"""Embeddings: tracks that one core turns into rows, and prediction against the plain chain."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from benchmarks.paired import compare, machine, pin_threads
from benchmarks.recordings import write_recordings

if TYPE_CHECKING:
    from pipelines.features import FeatureSpec

PACKAGES = ("numpy", "torch", "soundfile", "soxr")


def built(folder: Path, feature: FeatureSpec, clip_seconds: float) -> float:
    """Build a feature set in this process and return the tracks per minute."""
    from pipelines.build.building import build_sets
    from pipelines.build.decode import decode_here
    from pipelines.build.options import BuildOptions
    from pipelines.settings import ClipSpec, SplitSpec
    from pipelines.sources.catalog import read_catalog

    catalog = read_catalog(folder)
    clip = ClipSpec(clip_seconds=clip_seconds, hop_seconds=clip_seconds, clips_per_track=None)
    started = time.perf_counter()
    options = BuildOptions(decode=decode_here)
    build_sets(catalog, folder.parent / "sets", [(clip, feature)], SplitSpec(), options)
    return 60 * len(catalog.tracks) / (time.perf_counter() - started)


def predicted(
    song: Path, feature: FeatureSpec, clip_seconds: float, rounds: int
) -> dict[str, Any]:
    """Compare the prediction of a song with the same chain written out in torch."""
    import soundfile
    import soxr
    import torch

    from pipelines.features.networks.frozen import build_frozen
    from pipelines.settings import ClipSpec
    from tuner.models.heads import Linear
    from tuner.prediction.answer import predict_file
    from tuner.training.bundle import Bundle
    from tuner.training.predictor import Predictor
    from tuner.training.recipe import Crops

    clip = ClipSpec(clip_seconds=clip_seconds, hop_seconds=clip_seconds, clips_per_track=None)
    bundle = Bundle(tuple("abcdefghij"), clip, feature, Crops(), Linear())
    network = build_frozen(feature.networks, with_weights=True)
    classifier = bundle.classifier().eval()
    rng = np.random.default_rng(0)
    rows, y = rng.normal(size=(200, feature.shape(clip)[0])).astype("f4"), np.arange(200) % 10
    classifier.network.fit(rows, y, balanced=False, seed=0)  # type: ignore[operator]
    model = Predictor(bundle, classifier, network)

    @torch.inference_mode()
    def plain() -> Any:
        samples, rate = soundfile.read(song, dtype="float32", always_2d=True)
        mono = soxr.resample(samples.mean(1), rate, feature.sample_rate)
        length = feature.num_samples(clip_seconds)
        clips = torch.from_numpy(mono[: len(mono) // length * length].reshape(-1, length))
        # Few clips at once, as the chain under test.
        activations = torch.cat([network(clips[i : i + 2]) for i in range(0, len(clips), 2)])
        return classifier(activations).softmax(1).mean(0).numpy()

    found = predict_file(song, model).probabilities
    difference = np.abs([found[label] for label in bundle.labels] - plain()).max()
    variants = {"ours": lambda: predict_file(song, model), "plain": plain}
    times = compare(variants, rounds)
    return {
        "ms": times.median_ms(),
        "plain by ours": vars(times.ratio("plain", of="ours")),
        "largest difference": float(difference),
    }


@click.command()
@click.option("--files", default=60, show_default=True, help="Number of stereo files of 30 s.")
@click.option("--network", default="musicnn_msd", show_default=True, help="Network or networks.")
@click.option("--clip-seconds", default=3.0, show_default=True, help="Length of a clip.")
@click.option("--rounds", default=15, show_default=True, help="Rounds of predictions.")
def main(files: int, network: str, clip_seconds: float, rounds: int) -> None:
    """Measure on one thread and print JSON."""
    pin_threads()
    import torch

    from pipelines.features import FeatureSpec

    torch.set_num_threads(1)

    feature = FeatureSpec(kind="embedding", network=network).at_rate_of_networks()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_recordings(data, files, 30.0, "wav")
        song = min(data.rglob("*.wav"))
        per_minute = built(data, feature, clip_seconds)
        found = predicted(song, feature, clip_seconds, rounds)
    print(json.dumps({
        "machine": machine(PACKAGES), "network": network, "clip_seconds": clip_seconds,
        "tracks a minute and core": round(per_minute, 1), "predict": found,
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
