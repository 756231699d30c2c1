"""Optimizers by name, from torch, timm and pytorch_optimizer, that resume bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from tuner.training.optim.groups import parameter_groups

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn
    from torch.optim import Optimizer

    Groups = list[dict[str, Any]]

OptimizerName = Literal[
    "adamw", "adam", "nadam", "radam", "sgd", "rmsprop", "lamb", "lion", "adabound"
]


def _lamb(groups: Groups, lr: float, _: float) -> Optimizer:
    """LAMB as in You et al. 2020 (arXiv 1904.00962), whatever the weight decay.

    timm adapts rates to layers only where weights decay, and clips gradients unasked; here kernels
    are always adapted, norms and biases never, and clipping is a setting of its own.
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
    """AdaBound whose rates end at 100 times the rate of the step, whatever that is.

    The library scales its final_lr by the rate of the step over the rate it was made with: here
    the defaults of Luo et al. 2019 (arXiv 1902.09843), 0.1 over 1e-3. Were it made with the
    searched rate, late steps would be the same for all of them.
    """
    from pytorch_optimizer import AdaBound

    optimizer: Optimizer = AdaBound(groups, lr=1e-3, final_lr=0.1)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return optimizer


# Fused kernels take half to a third of the time of the others on a CPU; where there are none, the
# library chooses between one call per tensor and calls over lists.
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
    memory and would pair wrong numbers without a word.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
                continue
            if value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _discount_idle_groups(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
    """Take back the step that LAMB and AdaBound count for a group of which nothing learned.

    They correct their moments by the steps of the group: a body that thaws after ten epochs has
    empty moments, and would go several times too far if its group had counted all along.
    """
    for group in optimizer.param_groups:
        if "step" in group and all(p.grad is None for p in group["params"]):
            group["step"] -= 1


def build_optimizer(
    network: nn.Module, name: OptimizerName, peak_lr: float, weight_decay: float, momentum: float
) -> Optimizer:
    """The named optimizer over the groups of `parameter_groups`.

    The rate of each group is set before each step from `learning_rate`. The network must be on its
    device, in its final memory order, and everything that shall ever learn must have
    ``requires_grad``; freezing comes after.

    Args:
        network: has the submodules ``body`` and ``head``.
        name: which optimizer.
        peak_lr: the rate the groups begin with, 0 or more.
        weight_decay: on kernels only; added to the gradient by adam, sgd and rmsprop, to the
            update before it is scaled by lamb, and taken off the weights by the others
            (Loshchilov & Hutter 2019, arXiv 1711.05101).
        momentum: of sgd (Nesterov's) and rmsprop.
    """
    groups = parameter_groups(network, weight_decay)
    optimizer = _OPTIMIZERS[name](groups, peak_lr, momentum)
    optimizer.register_load_state_dict_post_hook(_lay_out_like_parameters)
    optimizer.register_step_post_hook(_discount_idle_groups)
    return optimizer
