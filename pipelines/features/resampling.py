"""Resampling as a torch module, with the filter that decodes audio files."""

from __future__ import annotations

from math import ceil, gcd

import numpy as np
import torch

# Samples of the lower rate on each side of a sample where soxr's filter is not 0; 91 measured.
_REACH = 96
# 16 MB. Pairs of usual rates take up to 4 MB, two rates without a common divisor hundreds.
MAX_FILTER_VALUES = 2**22


def filter_shape(source_hz: int, target_hz: int) -> tuple[int, int]:
    """Return the number of filters that resample between two rates, and the length of each."""
    common = gcd(source_hz, target_hz)
    reach = ceil(_REACH * max(1, source_hz / target_hz))
    return target_hz // common, source_hz // common + 2 * reach


class Resampler(torch.nn.Module):
    """Change of the sample rate that ``torch.export`` takes with any length.

    Resampling by p / q maps each q samples to p, and each of these is a fixed weighted sum of
    samples around it: a convolution with p filters in steps of q. The filters are soxr's own,
    found as its answers to q impulses. So the result differs from soxr's by rounding, about 1e-6
    of full scale, but for the first three samples, where soxr deviates from its own filter.

    Args:
        source_hz: Rate of the samples it is given.
        target_hz: Rate of the samples it makes.
    """

    filters: torch.Tensor

    def __init__(self, source_hz: int, target_hz: int) -> None:
        super().__init__()
        self.num_filters, length = filter_shape(source_hz, target_hz)
        self.step = source_hz // gcd(source_hz, target_hz)
        self.reach = (length - self.step) // 2
        filters = _measured(source_hz, target_hz, self.step, self.num_filters, self.reach)
        self.register_buffer("filters", torch.from_numpy(filters)[:, None], persistent=False)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Map float32[n, t] to float32[n, t p / q], rounded."""
        num = samples.shape[1]
        blocks = num // self.step + 2  # more than are wanted, so that no length is special
        margin = (self.reach, self.reach + blocks * self.step - num)
        padded = torch.nn.functional.pad(samples, margin)[:, None]
        made = torch.nn.functional.conv1d(padded, self.filters, stride=self.step)  # [n, p, blocks]
        wanted = (2 * num * self.num_filters + self.step) // (2 * self.step)
        return made.transpose(1, 2).flatten(1)[:, :wanted]


def _measured(
    source_hz: int, target_hz: int, step: int, num_filters: int, reach: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return the filters float32[p, 2 reach + q] in which soxr weighs samples."""
    import soxr

    around = ceil(reach / step) + 1  # blocks of impulses on each side of the one in the middle
    impulses = np.zeros((2 * around + 1, step, step), np.float32)
    impulses[around] = np.eye(step)
    answers = soxr.resample(impulses.reshape(-1, step), source_hz, target_hz, quality="HQ")
    answers = answers.reshape(2 * around + 1, num_filters, step)
    # An impulse in the middle is seen by block b as one that lies (around - b) blocks later.
    by_place = answers[::-1].transpose(1, 0, 2).reshape(num_filters, -1)
    edge = around * step - reach
    return np.ascontiguousarray(by_place[:, edge : edge + 2 * reach + step])
