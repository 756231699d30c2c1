"""Clips as a trial reads them: from its GPU as far as they fit there, else from the map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tuner.training.crops import cut

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of the memory that a trial has on a GPU, what clips may take up.
SHARE = 0.4
# Of the map, what is read into the memory of the host at once on its way to the device.
COPIED_BYTES = 2**28


def budget(device: torch.device, gpus: float = 1.0) -> int:
    """Bytes that clips may take up on a device; none on a CPU, where the map is as fast.

    Args:
        device: of one worker.
        gpus: what it was given; of a fraction of a GPU as many others may run on the same one.
    """
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    # What trials before this one, in the same process, have freed and torch keeps at hand.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(SHARE * min(free, min(gpus, 1.0) * total))


@dataclass(frozen=True)
class Clips:
    """Features of ``n`` clips, the first of which lie on the device.

    Attributes:
        mapped: all of them, ``float16[n, f, m]``.
        device: where batches go.
        resident: the first ``r`` of them on the device, ``float16[r, f, m]``.
    """

    mapped: NDArray[np.float16]
    device: torch.device
    resident: torch.Tensor

    @classmethod
    def on(cls, device: torch.device, mapped: NDArray[np.float16], max_bytes: int) -> Clips:
        """Copy the first clips, those of training, as far as ``max_bytes`` reach."""
        clip_bytes = max(mapped[:1].nbytes, 1)
        count = min(len(mapped), max_bytes // clip_bytes)
        resident = torch.empty((count, *mapped.shape[1:]), dtype=torch.float16, device=device)
        step = max(1, COPIED_BYTES // clip_bytes)
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            resident[part] = torch.from_numpy(np.array(mapped[part])).to(device)
        return cls(mapped, device, resident)

    def crops(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], width: int
    ) -> torch.Tensor:
        """Crops ``float32[b, f, width]`` of clips ``[b]`` that start at frames ``[b]``."""
        there = rows < len(self.resident)
        if there.all():
            return self._resident_crops(rows, starts, width)
        if not there.any():
            return self._mapped_crops(rows, starts, width)
        x = torch.empty((len(rows), self.mapped.shape[1], width), device=self.device)
        at = self._indices(np.flatnonzero(there))
        x[at] = self._resident_crops(rows[there], starts[there], width)
        at = self._indices(np.flatnonzero(~there))
        x[at] = self._mapped_crops(rows[~there], starts[~there], width)
        return x

    def whole(self, at: slice) -> torch.Tensor:
        """Clips ``float32[b, f, m]`` in a row."""
        if at.stop <= len(self.resident):
            return self.resident[at].float()
        return torch.from_numpy(self.mapped[at].astype(np.float32)).to(self.device)

    def _resident_crops(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], width: int
    ) -> torch.Tensor:
        return cut(self.resident[self._indices(rows)], self._indices(starts), width).float()

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
