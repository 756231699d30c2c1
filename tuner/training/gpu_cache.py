"""Clips cached on the GPU, with the rest read from the memory map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tuner.training.crops import cut

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Share of a trial's GPU memory that cached clips may use.
CACHE_SHARE = 0.4
# Bytes of the memory map that are read into host memory at once on their way to the device.
COPIED_BYTES = 2**28


def cache_budget(device: torch.device, gpus: float = 1.0) -> int:
    """Return the bytes that cached clips may use; 0 on a CPU, where the map is as fast.

    Args:
        device: Device of one worker.
        gpus: GPUs of the worker; with a fraction, other trials share the same GPU.
    """
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    # Earlier trials of this process have freed this memory, and torch keeps it for reuse.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(CACHE_SHARE * min(free, min(gpus, 1.0) * total))


@dataclass(frozen=True)
class CachedClips:
    """Features of ``n`` clips, the first of which are cached on the device.

    Attributes:
        mapped: All clips, ``float16[n, f, m]``.
        device: Device of the batches.
        cached: First ``c`` clips, on the device, ``float16[c, f, m]``.
    """

    mapped: NDArray[np.float16]
    device: torch.device
    cached: torch.Tensor

    @classmethod
    def load(
        cls, device: torch.device, mapped: NDArray[np.float16], max_bytes: int
    ) -> CachedClips:
        """Copy as many clips to the device as fit, beginning with those of the train split."""
        clip_bytes = max(mapped[:1].nbytes, 1)
        count = min(len(mapped), max_bytes // clip_bytes)
        cached = torch.empty((count, *mapped.shape[1:]), dtype=torch.float16, device=device)
        step = max(1, COPIED_BYTES // clip_bytes)
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            cached[part] = torch.from_numpy(np.array(mapped[part])).to(device)
        return cls(mapped, device, cached)

    def crops(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], width: int
    ) -> torch.Tensor:
        """Return crops ``float32[b, f, width]`` of clips ``[b]`` that start at frames ``[b]``."""
        is_cached = rows < len(self.cached)
        if is_cached.all():
            return self._cached_crops(rows, starts, width)
        if not is_cached.any():
            return self._mapped_crops(rows, starts, width)
        x = torch.empty((len(rows), self.mapped.shape[1], width), device=self.device)
        for chosen, crops in ((is_cached, self._cached_crops), (~is_cached, self._mapped_crops)):
            x[self._indices(np.flatnonzero(chosen))] = crops(rows[chosen], starts[chosen], width)
        return x

    def whole(self, at: slice) -> torch.Tensor:
        """Return consecutive clips ``float32[b, f, m]``, uncropped."""
        if at.stop <= len(self.cached):
            return self.cached[at].float()
        return torch.from_numpy(self.mapped[at].astype(np.float32)).to(self.device)

    def _cached_crops(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], width: int
    ) -> torch.Tensor:
        return cut(self.cached[self._indices(rows)], self._indices(starts), width).float()

    def _mapped_crops(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], width: int
    ) -> torch.Tensor:
        if width == self.mapped.shape[2]:
            chosen = self.mapped[rows]
        else:
            pairs = zip(rows, starts, strict=True)
            chosen = np.stack([self.mapped[row, :, at : at + width] for row, at in pairs])
        return torch.from_numpy(chosen).to(self.device).float()

    def _indices(self, values: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
