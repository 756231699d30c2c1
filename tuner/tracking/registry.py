"""Registered models: what a study leaves for others to use.

A version holds the model twice: as a ``torch.export`` program from waveform to probabilities,
which serving loads and which holds no pickle, and as bundle with safetensors, which prediction and
fine-tuning load.
"""

from __future__ import annotations

from tuner.tracking.export import WaveformModel
from tuner.tracking.fetch import fetch_bundle
from tuner.tracking.promote import CHAMPION, ModelFacts, Registration, register

__all__ = [
    "CHAMPION",
    "ModelFacts",
    "Registration",
    "WaveformModel",
    "fetch_bundle",
    "register",
]
