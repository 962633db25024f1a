"""Cross-entropy summed over rows, its gradient found on the way: one exponential a logit instead of two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from wenlu.data.batch import NO_TARGET
from wenlu.models.layers import by_hand

if TYPE_CHECKING:
    from jaxtyping import Float, Int

BLOCK = 1 << 19
"""Logits at once in f32: two arrays of 2 MiB stay in a processor's cache."""


def cross_entropy(
    logits: Float[Tensor, "rows vocab"], targets: Int[Tensor, " rows"], smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Σ −log softmax(logits)[target] in f32, in nats; rows whose target is `NO_TARGET` count nothing.

    With `smoothing` that part of a target's certainty is given to all classes alike (Szegedy et al. 2016, 7).
    """
    if logits.requires_grad and by_hand(logits):
        return _CrossEntropy.apply(logits, targets, smoothing)
    return F.cross_entropy(logits.float(), targets, reduction="sum", label_smoothing=smoothing)


@torch.no_grad()
def replace_by_gradient(
    logits: Float[Tensor, "rows vocab"],
    targets: Int[Tensor, " rows"],
    smoothing: float = 0.0,
    into: Float[Tensor, "rows vocab"] | None = None,
) -> Float[Tensor, ""]:
    """`cross_entropy`; its gradient, softmax(logits) − target (on a processor found by few rows), takes the place of
    the logits, or that of `into`, and they stay."""
    into = logits if into is None else into
    if not logits.is_cpu:
        with torch.enable_grad():
            leaf = logits.float().detach().requires_grad_()
            loss = F.cross_entropy(leaf, targets, reduction="sum", label_smoothing=smoothing)
        into.copy_(torch.autograd.grad(loss, leaf)[0])
        return loss.detach()
    rows = max(1, BLOCK // logits.shape[1])
    parts = zip(logits.split(rows), targets.split(rows), into.split(rows), strict=True)
    return torch.stack([_replace(part, of_part, smoothing, to) for part, of_part, to in parts]).sum()


def _replace(logits: Tensor, targets: Tensor, smoothing: float, into: Tensor) -> Tensor:
    wide = logits.float()
    gradient = wide.softmax(-1)
    # log Σ exp x is the largest x less the logarithm of its probability, which is never small.
    normaliser = wide.amax(-1) - gradient.amax(-1).log()
    real, at = targets != NO_TARGET, targets.clamp_min(0)[:, None]
    loss = normaliser - (1 - smoothing) * wide.gather(1, at).squeeze(1)
    if smoothing:
        loss -= smoothing * wide.mean(-1)
        gradient -= smoothing / wide.shape[1]
    gradient.scatter_(1, at, gradient.gather(1, at) - (1 - smoothing))
    if not bool(real.all()):
        gradient.masked_fill_(~real[:, None], 0.0)
        loss.masked_fill_(~real, 0.0)
    into.copy_(gradient)
    return loss.sum()


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(context, logits, targets, smoothing):
        gradient = torch.empty_like(logits)
        loss = replace_by_gradient(logits, targets, smoothing, gradient)
        context.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(context, scale):
        (gradient,) = context.saved_tensors
        return gradient if scale.is_cpu and scale == 1 else gradient * scale, None, None
