"""Which parameters decay, and which belong to the body or the head of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator


def _undecayed_names(network: nn.Module) -> Iterator[str]:
    """Parameters of more than one axis that are no kernels: embeddings, class tokens."""
    for prefix, module in network.named_modules():
        start = f"{prefix}." if prefix else ""
        if isinstance(module, nn.Embedding):
            yield f"{start}weight"
        # timm's models name their own, as paths below the module that has the method.
        own = getattr(module, "no_weight_decay", None)
        if callable(own):
            yield from (start + name for name in own())


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What an optimizer takes: at most four groups, {body, head} x {kernels, the rest}.

    Everything outside ``network.body`` is head. Kernels are parameters of more than one axis that
    no module lists in ``no_weight_decay()`` and that are no embedding. Parameters that do not
    learn now (``requires_grad`` is off) are left out, and so are groups without any.

    Returns:
        Groups with ``params``, ``weight_decay``, ``part`` ("body" or "head") and ``kernels``.
    """
    in_body = {id(p) for p in network.get_submodule("body").parameters()}
    undecayed = set(_undecayed_names(network))
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {
        (part, kernels): [] for part in ("body", "head") for kernels in (True, False)
    }
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            part = "body" if id(parameter) in in_body else "head"
            groups[part, parameter.ndim > 1 and name not in undecayed].append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if kernels else 0.0,
            "part": part,
            "kernels": kernels,
        }
        for (part, kernels), parameters in groups.items()
        if parameters
    ]
