"""The optimizer, and its learning rate at each step.

Optimizers come from torch, timm and pytorch_optimizer and resume bit for bit. Learning rates are
pure functions of the step, so a resumed run needs no scheduler state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from tuner.training.settings import Optim, OptimizerName

    Groups = list[dict[str, Any]]


# Smith & Topin 2018 (arXiv 1708.07120) with the constants of torch's OneCycleLR: rise over 30 % of
# the steps from 1/25 of the peak, then fall to 1e-4 of where the rise started.
RISE_SHARE = 0.3
START_DIVISOR = 25.0
FINAL_DIVISOR = 1e4


def _undecayed_names(network: nn.Module) -> Iterator[str]:
    """Yield names of parameters with several axes that are not kernels: embeddings, tokens."""
    for prefix, module in network.named_modules():
        start = f"{prefix}." if prefix else ""
        if isinstance(module, nn.Embedding):
            yield f"{start}weight"
        # timm's models list theirs, relative to the module that has the method.
        own = getattr(module, "no_weight_decay", None)
        if callable(own):
            yield from (start + name for name in own())


def _parameter_groups(network: nn.Module, weight_decay: float) -> Groups:
    """Return at most four parameter groups: {body, head} x {kernels, the rest}.

    Everything outside ``network.body`` belongs to the head. Kernels are parameters with several
    axes, except embeddings and those that a module lists in ``no_weight_decay()``. Parameters that
    do not require a gradient, and empty groups, are left out.

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


def _lamb(groups: Groups, lr: float, _: float) -> Optimizer:
    """Return LAMB as published by You et al. 2020 (arXiv 1904.00962), for any weight decay.

    By default timm adapts rates to layers only where weights decay, and clips gradients. Here
    kernels are always adapted, norms and biases never, and clipping is a setting of its own.
    """
    from timm.optim import Lamb  # imported here: timm takes two seconds, few trials need it

    adapted = [group | {"always_adapt": group["kernels"]} for group in groups]
    optimizer: Optimizer = Lamb(adapted, lr=lr, max_grad_norm=None)
    return optimizer


def _lion(groups: Groups, lr: float, _: float) -> Optimizer:
    from timm.optim import Lion

    optimizer: Optimizer = Lion(groups, lr=lr)
    return optimizer


def _adabound(groups: Groups, lr: float, _: float) -> Optimizer:
    """Return AdaBound whose final rate is 100 times the rate of the step, whatever that is.

    The library scales its final_lr by the rate of the step over the rate it was built with: here
    the defaults of Luo et al. 2019 (arXiv 1902.09843), 0.1 over 1e-3. Built with the searched
    rate, late steps would be the same for all rates.
    """
    from pytorch_optimizer import AdaBound

    optimizer: Optimizer = AdaBound(groups, lr=1e-3, final_lr=0.1)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return optimizer


# Fused kernels take a third to half of the time of the others on a CPU. Where there are none,
# torch chooses between one call per tensor and calls over lists.
_OPTIMIZERS: dict[OptimizerName, Callable[[Groups, float, float], Optimizer]] = {
    "adamw": lambda groups, lr, _: torch.optim.AdamW(groups, lr=lr, fused=True),
    "adam": lambda groups, lr, _: torch.optim.Adam(groups, lr=lr, fused=True),
    "nadam": lambda groups, lr, _: torch.optim.NAdam(groups, lr=lr, decoupled_weight_decay=True),
    "radam": lambda groups, lr, _: torch.optim.RAdam(groups, lr=lr, decoupled_weight_decay=True),
    "sgd": lambda groups, lr, momentum: torch.optim.SGD(
        groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True
    ),
    "rmsprop": lambda groups, lr, momentum: torch.optim.RMSprop(groups, lr=lr, momentum=momentum),
    "lamb": _lamb,
    "lion": _lion,
    "adabound": _adabound,
}


def _lay_out_like_parameters(optimizer: Optimizer) -> None:
    """Give loaded moments the memory order of their parameters.

    Files keep row-major order, networks may be channels-last; torch's fused kernels walk through
    memory and would silently pair the wrong numbers.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
                continue
            if value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _discount_idle_groups(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
    """Undo the step that LAMB and AdaBound count for a group without any gradient.

    They correct their moments by the step count of the group: a body that thaws after ten epochs
    has empty moments, and would step several times too far if its group had counted all along.
    """
    for group in optimizer.param_groups:
        if "step" in group and all(p.grad is None for p in group["params"]):
            group["step"] -= 1


def build_optimizer(network: nn.Module, optim: Optim) -> Optimizer:
    """Build an optimizer over ``network.body`` and ``network.head``.

    Set the rate of each group from `learning_rate` before each step. The network must be on its
    device, in its final memory order, and every parameter that ever learns must require a
    gradient; freeze afterwards.

    Weight decay applies to kernels only. adam, sgd and rmsprop add it to the gradient, lamb adds
    it to the update before scaling it, and the others subtract it from the weights (Loshchilov &
    Hutter 2019, arXiv 1711.05101). The momentum of sgd is Nesterov's.
    """
    groups = _parameter_groups(network, optim.weight_decay)
    optimizer = _OPTIMIZERS[optim.name](groups, optim.peak_lr, optim.momentum)
    optimizer.register_load_state_dict_post_hook(_lay_out_like_parameters)
    optimizer.register_step_post_hook(_discount_idle_groups)
    return optimizer


def _cosine(start: float, end: float, share: float) -> float:
    """Return the value between ``start`` and ``end`` at ``share`` of half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _one_cycle(peak: float, step: int, total_steps: int) -> float:
    rise_end = RISE_SHARE * total_steps - 1
    if step <= rise_end:
        return _cosine(peak / START_DIVISOR, peak, step / rise_end)
    fallen = min((step - rise_end) / max(total_steps - 1 - rise_end, 1.0), 1.0)
    return _cosine(peak, peak / START_DIVISOR / FINAL_DIVISOR, fallen)


def _cyclical(peak: float, step: int, total_steps: int, cycles: int) -> float:
    """Return the rate of Smith's triangular policy (2017, arXiv 1506.01186).

    The last step ends the last cycle.
    """
    last = total_steps - 1
    if last < 2:
        return peak  # no room for a rise and a fall
    # A cycle of fewer than two steps would never leave its lowest rate.
    cycle_steps = last / min(cycles, last // 2)
    share = step % cycle_steps / cycle_steps
    foot = peak / START_DIVISOR
    return foot + (peak - foot) * (1 - abs(2 * share - 1))


def learning_rate(optim: Optim, step: int, total_steps: int) -> float:
    """Return the learning rate of one step, counted from 0.

    "one_cycle" rises and falls once. "cyclical" does so several times, from 1/25 of the peak, with
    fewer cycles where one would have less than two steps. "constant" and "cosine" warm up along a
    straight line, so that the step after the warm-up is the first at the peak; then they stay, or
    fall to 0 along half a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts).

    Args:
        optim: Schedule and peak.
        step: Step, from 0.
        total_steps: Number of steps that the schedule covers.
    """
    peak = optim.peak_lr
    if optim.schedule == "one_cycle":
        return _one_cycle(peak, step, total_steps)
    if optim.schedule == "cyclical":
        return _cyclical(peak, step, total_steps, optim.cycles)
    rise = round(optim.warmup_share * total_steps)
    if step < rise:
        return peak * (step + 1) / (rise + 1)
    if optim.schedule == "constant":
        return peak
    return _cosine(peak, 0.0, min((step - rise) / max(total_steps - 1 - rise, 1), 1.0))
