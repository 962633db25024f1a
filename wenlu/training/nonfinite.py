"""Which module a NaN or an infinity comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from wenlu.training.objectives import Batch


def blame(model: nn.Module, batches: Iterable[Batch], loss: Callable) -> str:
    """Name the first place, in the order of computation, that is not finite: a weight, an output, else a gradient.

    `batches` are the micro-batches of the step, in the precision of which this is called.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"weight {name} is not finite"
    found: list[str] = []

    def look(name: str):
        def hook(module, inputs, output):
            tensors = output if isinstance(output, tuple) else (output,)
            if not found and any(isinstance(t, Tensor) and not torch.isfinite(t).all() for t in tensors):
                found.append(name)

        return hook

    hooks = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            losses = [loss(model, batch)[0] for batch in batches]
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return f"the output of module {found[0]} is not finite"
    if not all(torch.isfinite(each) for each in losses):
        return "the output of the head, or the loss itself, is not finite"
    bad = [name for name, p in model.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
    return f"the gradient of {bad[-1]} is not finite" if bad else "the gradient norm is not finite"
