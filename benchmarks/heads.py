"""Linear heads on frozen networks, each value of a column held out in turn; nothing is tuned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from benchmarks.paired import machine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.sources.tracks import Track

PACKAGES = ("numpy", "torch", "scikit-learn", "soundfile", "soxr")


def embedded(
    root: Path, tracks: list[Track], network: str, clip_seconds: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the rows ``[n, f]`` of all clips, and the number of each row's track ``[n]``."""
    from pipelines.audio import decode
    from pipelines.features import FeatureSpec
    from pipelines.features.extract import extract
    from pipelines.settings import ClipSpec

    feature = FeatureSpec(kind="embedding", network=network).at_rate_of_networks()
    clip = ClipSpec(
        clip_seconds=clip_seconds, hop_seconds=clip_seconds, clips_per_track=None, short="repeat"
    )
    rows, owners = [], []
    for number, track in enumerate(tracks):
        samples = decode(root / track.path, feature.sample_rate).samples
        made = extract(samples, clip, feature).features[:, :, 0].astype(np.float32)
        rows.append(made)
        owners += [number] * len(made)
    return np.concatenate(rows), np.array(owners)


def accuracy(
    x: NDArray[np.float32],
    owner: NDArray[np.int64],
    y: NDArray[np.int64],
    test: NDArray[np.bool_],
    loss: str,
) -> float:
    """Fit on the clips of the other tracks; return the share of test tracks that win the vote."""
    import torch

    from tuner.models.heads import Linear

    learns = ~test[owner]
    mean, std = x[learns].mean(0), x[learns].std(0).clip(1e-3)
    scaled = (x - mean) / std
    k = int(y.max()) + 1
    # The defaults of a linear head; ridge needs more.
    head: Any = Linear.model_validate({"loss": loss, "l2": 0.01 if loss == "logistic" else 1.0})
    network = head.build(k, x.shape[1])
    network.fit(scaled[learns], y[owner][learns], balanced=False, seed=0)
    with torch.inference_mode():
        clips = network(torch.from_numpy(scaled)[:, None, :, None]).softmax(1).numpy()
    votes = np.zeros((len(y), k))
    np.add.at(votes, owner, clips)
    return float((votes.argmax(1) == y)[test].mean())


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--column", required=True, help="Manifest column whose values are held out.")
@click.option("--network", default="musicnn_msd", show_default=True, help="Network or networks.")
@click.option("--clip-seconds", default=5.0, show_default=True, help="Length of a clip.")
@click.option("--only", default="", help="Use only files whose path contains a match of this.")
def main(data: Path, column: str, network: str, clip_seconds: float, only: str) -> None:
    """Print the accuracy of each held-out value of COLUMN in DATA, a manifest, as JSON."""
    import re

    from pipelines.sources.catalog import read_catalog

    catalog = read_catalog(data)
    tracks = [track for track in catalog.tracks if re.search(only, track.path)]
    labels = sorted({track.label for track in tracks})
    y = np.array([labels.index(track.label) for track in tracks])
    folds = np.array([track.columns[column] for track in tracks])
    x, owner = embedded(Path(catalog.root), tracks, network, clip_seconds)
    found = {
        loss: {value: accuracy(x, owner, y, folds == value, loss) for value in np.unique(folds)}
        for loss in ("logistic", "ridge")
    }
    print(json.dumps({
        "machine": machine(PACKAGES), "tracks": len(tracks), "network": network,
        "accuracy": {
            loss: {"mean": round(float(np.mean(list(by.values()))), 4), **by}
            for loss, by in found.items()
        },
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
