"""The built-in demo dataset: electronic music made by arithmetic.

`lines` and `genres` say what is played, `artists` who plays it, `synth` and `mixing` how it
sounds, `compose` puts a track together, `rendering` writes tracks to files on all processors,
and `dataset` adds the manifest.
"""

from pipelines.demo.dataset import write_demo

__all__ = ["write_demo"]
