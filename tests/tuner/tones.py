"""Two tones that a model of samples must learn to distinguish."""

from __future__ import annotations

import math

import torch
from torch import nn

NUM_CLIPS, BATCH, STEPS = 64, 16, 16


def tells_apart(
    network: nn.Module, sample_rate: int, tones_hz: tuple[float, float], samples: int, lr: float
) -> bool:
    """Return True if 16 steps of AdamW take the loss of 64 noisy clips from above 0.2 below it."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(NUM_CLIPS) % 2
    cycles = torch.tensor(tones_hz)[labels][:, None] / sample_rate
    phase = torch.rand(NUM_CLIPS, 1, generator=draw)
    tone = torch.sin(2 * math.pi * (cycles * torch.arange(samples) + phase))
    noise = torch.randn(NUM_CLIPS, samples, generator=draw)
    x = (math.sqrt(2) * tone + 0.3 * noise)[:, None, None]

    optimizer = torch.optim.AdamW(network.train().parameters(), lr)
    losses = []
    for step in range(STEPS):
        start = BATCH * step % NUM_CLIPS
        part = slice(start, start + BATCH)
        loss = nn.functional.cross_entropy(network(x[part]), labels[part])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-4:]) / 4 < 0.2 < sum(losses[:2]) / 2
