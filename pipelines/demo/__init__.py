"""The built-in demo dataset: electronic music made by arithmetic.

`genres` tells what is played, `synth` makes the sounds, `tracks` turns an artist and a song into
samples, and `dataset` writes audio files and their manifest.
"""

from pipelines.demo.dataset import write_demo

__all__ = ["write_demo"]
