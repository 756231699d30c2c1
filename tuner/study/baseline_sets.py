"""Feature sets that the baselines read: the study's own where they fit, or cheap ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from pipelines.errors import SpecError
from pipelines.features import FeatureSpec
from pipelines.features.networks import NETWORKS
from pipelines.features.networks.store import find
from pipelines.features.rules import check_front_end
from pipelines.settings import ClipSpec

if TYPE_CHECKING:
    from tuner.config import Space
    from tuner.trials.cluster import Cluster

# Seconds of audio that one core embeds in a second: 124 tracks of 30 s in a minute, measured with
# musicnn on two cores.
EMBEDDED_PER_SECOND = 62.0
# A minute on two cores, whatever the cluster has: the same data gives the same clips everywhere.
MAX_CORE_SECONDS = 120.0
MAX_CLIPS = 10
WINDOW_SECONDS = 3.0  # of musicnn; a shorter clip is one of sounds rather than music
FFT_SECONDS = 0.046  # 1024 samples at 22,050 Hz


class Source(NamedTuple):
    """The feature set of a baseline; without one, the reason why it is left out."""

    name: str
    key: tuple[ClipSpec, FeatureSpec] | None
    left_out: str = ""


def baseline_sources(space: Space, cluster: Cluster, num_tracks: int) -> list[Source]:
    """Choose the feature set of each baseline; what is missing is built with the study's own.

    Weights of a network are never fetched for a baseline.

    Args:
        space: Space of the study.
        cluster: Cluster that builds the sets.
        num_tracks: Number of listed tracks.
    """
    own = space.feature_variants()
    first_of = {feature.kind: (clip, feature) for clip, feature in reversed(own)}
    clip, feature = own[0]
    logmel = first_of.get("logmel", (clip, _cheap_logmel(feature.sample_rate)))
    ridge = _checked(Source("ridge_logmel", logmel))
    embedding = Source("ridge_embedding", first_of.get("embedding"))
    if embedding.key is None:
        embedding = _checked(_cheap_embedding(clip, cluster, num_tracks))
    return [Source("majority", ridge.key or own[0]), ridge, embedding]


def _cheap_logmel(sample_rate: int) -> FeatureSpec:
    n_fft = 2 ** round(math.log2(FFT_SECONDS * sample_rate))
    return FeatureSpec(sample_rate=sample_rate, n_fft=n_fft, hop_length=n_fft // 2, n_mels=40)


def _cheap_embedding(clip: ClipSpec, cluster: Cluster, num_tracks: int) -> Source:
    """Return an embedding of as many clips as are cheap, or why there is none."""
    seconds = min(clip.clip_seconds, WINDOW_SECONDS)
    network = NETWORKS["speech" if seconds < WINDOW_SECONDS else "musicnn_msd"]
    num_clips = int(MAX_CORE_SECONDS * EMBEDDED_PER_SECOND / seconds / num_tracks)
    reason = ""
    if find(network) is None:
        reason = (
            f"the weights of {network.name} are not on this machine (python -m tuner.weights "
            f"fetch {network.name})"
        )
    elif cluster.num_nodes > 1:
        reason = f"the weights of {network.name} may be missing on other nodes"
    elif num_clips < 1:
        reason = f"{network.name} would take minutes for {num_tracks} tracks"
    if reason:
        return Source("ridge_embedding", None, reason)
    count = min(num_clips, MAX_CLIPS)
    clip = ClipSpec(clip_seconds=seconds, clips_per_track=count, short=clip.short)
    feature = FeatureSpec(kind="embedding", network=network.name).at_rate_of_networks()
    return Source("ridge_embedding", (clip, feature))


def _checked(source: Source) -> Source:
    try:
        if source.key is not None:
            check_front_end(*source.key)
    except SpecError as error:
        return Source(source.name, None, str(error))
    return source
