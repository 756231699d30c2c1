"""Another split of the tracks outside the test, by group, that leaks no more than the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipelines.splits.assign import spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pipelines.settings import SplitSpec

# Groups by these rules hold all copies of their recordings; others may leave copies apart.
JOINS_COPIES = ("auto", "track")
NEAR_COPY = "W_NEAR_DUP"


def reshuffled(
    tracks: Sequence[Mapping[str, str]], spec: SplitSpec, seed: int
) -> NDArray[np.bool_]:
    """Choose other validation tracks among those of train and val: whole groups, the same shares.

    Copies of one recording stay where the audit found them: if the rule of the groups does not
    join them, the groups of tracks with a copy keep their split. So do all tracks if a draw would
    leave a class out of train or val.

    Args:
        tracks: ``label``, ``group``, ``split`` and ``reason`` of each track.
        spec: How the tracks were split.
        seed: Seed of the draw.

    Returns:
        True for each track that validates.
    """
    is_val = np.array([one["split"] == "val" for one in tracks])
    if spec.column is not None:  # which the data set brought, and nobody may redraw
        return is_val
    held = {one["group"] for one in tracks if _is_held(one, spec)}
    free = [i for i, one in enumerate(tracks) if one["group"] not in held]
    train, val, _ = spec.shares
    shares = train / (train + val), val / (train + val)
    drawn = is_val.copy()
    labels, groups = ([tracks[i][name] for i in free] for name in ("label", "group"))
    drawn[free] = spread(labels, groups, shares, seed) == 1 if free else drawn[free]
    learns = np.array([one["split"] != "test" for one in tracks]) & ~drawn
    classes = np.array([one["label"] for one in tracks])
    is_whole = set(classes[drawn]) == set(classes[learns]) == set(classes)
    return drawn if is_whole else is_val


def _is_held(track: Mapping[str, str], spec: SplitSpec) -> bool:
    has_copy = spec.group not in JOINS_COPIES and NEAR_COPY in (track["reason"] or "")
    return track["split"] == "test" or has_copy
