"""Single samples that do not belong to the sound around them, as flipped bits leave them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MIN_JUMP = 0.1  # of full scale: less does no harm to a spectrogram
_OUTLIER = 4.0  # times the worst miss of the same prediction nearby
_REACH = 24  # samples on either side that a jump is compared with
_FLOOR = 2.0**-12  # so that one odd sample in exact silence still needs _MIN_JUMP only


def has_click(mono: NDArray[np.float32]) -> bool:
    """Whether one sample jumps away from its neighbours and the next one jumps back.

    The sample whose way there and back is the sharpest is predicted from the two on either
    side, by a cubic. It is a click when it misses by a tenth of full scale and by four times
    what the prediction misses anywhere nearby. A clip's edge, an attack or a crackle of a
    record lasts longer than one sample. Samples within _REACH of either end are not looked at.

    Args:
        mono: float32[t], one block of a file.
    """
    if len(mono) < 2 * _REACH + 5:
        return False
    step = mono[1:] - mono[:-1]
    if max(float(step.max()), -float(step.min())) < _MIN_JUMP:
        return False
    turn = step[1:] * step[:-1]
    margin = _REACH + 1
    at = int(turn[margin:-margin].argmin()) + margin + 1
    around = mono[at - _REACH - 2 : at + _REACH + 3].astype(np.float64)
    middle = _REACH + 2
    predicted = _cubic(around)[middle - 2]
    jump = abs(around[middle] - predicted)
    around[middle] = predicted
    misses = np.abs(around[2:-2] - _cubic(around))
    return bool(jump > _MIN_JUMP and jump > _OUTLIER * max(float(misses.max()), _FLOOR))


def _cubic(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each sample but two at either end, from its four neighbours."""
    near = samples[1:-3] + samples[3:-1]
    far = samples[:-4] + samples[4:]
    return (4.0 * near - far) / 6.0
