"""A model as programs that run without this package: for plain torch, and as ONNX."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

from tuner.evaluation.waveform_models import program_of

if TYPE_CHECKING:
    from pathlib import Path

    from tuner.evaluation.waveform_models import Program
    from tuner.training.predictor import TrainedModel

PT2 = "model.pt2"
ONNX = "model.onnx"
MAX_DIFFERENCE = 1e-5  # between the probabilities of torch and those of ONNX
_EXTRA = ("onnx", "onnxscript", "onnxruntime")


def save_programs(model: TrainedModel, folder: Path) -> tuple[Program, str]:
    """Write ``model.pt2``, and ``model.onnx`` if that is possible.

    Returns:
        The program, and why there is no ONNX file; empty if there is one.
    """
    program = program_of(model)
    # Of any length but this, which an export would take for a constant if it were not marked.
    generator = torch.Generator().manual_seed(0)
    length = program.length or 2 * program.least
    example = 0.1 * torch.randn(2, length, generator=generator)
    any_size = torch.export.Dim.AUTO
    shapes = ({0: any_size} if program.length else {0: any_size, 1: any_size},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export warns about its own internals
        exported = torch.export.export(program.module, (example,), dynamic_shapes=shapes)
        torch.export.save(exported, folder / PT2)
        return program, _save_onnx(program, example, shapes, folder / ONNX)


def _save_onnx(
    program: Program, example: torch.Tensor, shapes: tuple[dict[int, object]], path: Path
) -> str:
    """Write the program as ONNX; return why it cannot be, else an empty text."""
    if missing := [name for name in _EXTRA if importlib.util.find_spec(name) is None]:
        return f"{', '.join(missing)} not installed; the extra `onnx` of this package brings it"
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # onnxscript warns about its own internals
    try:
        made = torch.onnx.export(
            program.module, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False,
            input_names=["samples"], output_names=["probabilities"],
        )  # fmt: skip
        assert made is not None
        made.save(path)
        gap = _difference(program.module, example, path)
    except Exception as error:  # noqa: BLE001  # exporter and runtime raise any kind
        path.unlink(missing_ok=True)
        reason = str(error).strip().partition("\n")[0]
        return (
            f"the exporter of torch cannot express this model ({type(error).__name__}: {reason})"
        )
    finally:
        logging.disable(before)
    if gap > MAX_DIFFERENCE:
        path.unlink()
        return f"its probabilities would differ by {gap:.1g} from those of the model"
    return ""


def _difference(module: torch.nn.Module, example: torch.Tensor, path: Path) -> float:
    """Return the largest difference of probabilities, on noise of all levels, a tone and silence.

    Both programs round features to float16, so a last digit can become a step of one in 2,000.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    tone = 0.3 * torch.sin(0.05 * torch.arange(example.shape[1]))
    gaps = []
    # Another number of clips than in the example.
    noise = example[0]
    levels = torch.stack([tone, 0 * tone, 3 * tone, 1e-4 * noise, (30 * noise).clamp(-1, 1)])
    for samples in (example, levels):
        (found,) = session.run(None, {"samples": samples.numpy()})
        with torch.inference_mode():
            gaps.append(np.abs(found - module(samples).numpy()).max())
    return float(max(gaps))
