"""Layers of a TensorFlow checkpoint in a package, as state of torch's modules."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import torch

from pipelines.errors import WeightsError
from pipelines.features.networks.tensorflow_bundle import read_checkpoint

# Both slots of the optimizer Adam for each variable, and its two numbers.
_OPTIMIZER = ("/Adam", "/Adam_1", "beta1_power", "beta2_power")


class LayerReader:
    """The layers of a checkpoint, each as a part of the state of a torch module.

    TensorFlow's maps have the axes time and frequency, then channels; ours have channels, then
    frequency and time.

    Args:
        wheel: The package.
        folder: Folder of the checkpoint in it.

    Raises:
        WeightsError: The checkpoint is missing or damaged.
    """

    def __init__(self, wheel: Path, folder: str) -> None:
        try:
            with ZipFile(wheel) as files:
                index = files.read(f"{folder}/.index")
                data = files.read(f"{folder}/.data-00000-of-00001")
        except KeyError as error:
            raise WeightsError(f"the package has no checkpoint: {error.args[0]}") from error
        self._folder = folder
        self._variables = read_checkpoint(index, data, lambda name: not name.endswith(_OPTIMIZER))

    def convolution_2d(self, layer: str, name: str) -> dict[str, torch.Tensor]:
        """Return a ``Conv2d`` over frequency and time; its kernel is stored as [t, f, in, out]."""
        return self._pair(layer, name, (3, 2, 1, 0))

    def convolution_1d(self, layer: str, name: str) -> dict[str, torch.Tensor]:
        """Return a ``Conv1d`` over time, stored as a kernel over all of [t, in, 1, out]."""
        state = self._pair(layer, name, (3, 1, 0, 2))
        return state | {f"{name}.weight": state[f"{name}.weight"].flatten(2)}

    def dense(self, layer: str, name: str) -> dict[str, torch.Tensor]:
        """Return a ``Linear``; its kernel is stored as [in, out]."""
        return self._pair(layer, name, (1, 0))

    def norm(self, layer: str, name: str) -> dict[str, torch.Tensor]:
        """Return a batch norm."""
        return {
            f"{name}.weight": self._read(f"{layer}/gamma"),
            f"{name}.bias": self._read(f"{layer}/beta"),
            f"{name}.running_mean": self._read(f"{layer}/moving_mean"),
            f"{name}.running_var": self._read(f"{layer}/moving_variance"),
            f"{name}.num_batches_tracked": torch.tensor(0),  # not stored, and not used
        }

    def _pair(self, layer: str, name: str, axes: tuple[int, ...]) -> dict[str, torch.Tensor]:
        """Return kernel and bias, with the axes of the kernel in another order."""
        kernel, bias = self._read(f"{layer}/kernel"), self._read(f"{layer}/bias")
        if kernel.ndim != len(axes):
            raise WeightsError(
                f"{self._folder}: {layer}/kernel has the shape {list(kernel.shape)}"
            )
        return {f"{name}.weight": kernel.permute(axes).contiguous(), f"{name}.bias": bias}

    def _read(self, variable: str) -> torch.Tensor:
        values = self._variables.get(variable)
        if values is None:
            raise WeightsError(f"{self._folder}: the checkpoint has no variable {variable}")
        return torch.from_numpy(values.copy())
