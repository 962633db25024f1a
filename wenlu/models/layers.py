"""Normalisation and the gated unit: the formulas, each with a backward pass that touches memory few times.

Small models on a processor are bound by passes over memory and by the number of operators, not by arithmetic; autograd
would derive five to ten operators from each of these. Under torch.compile and on a GPU, torch's own forms are used.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float

ACTIVATIONS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
}
"""By the names that Transformers' configurations use (relu2: So et al. 2021)."""


def project(
    hidden: Float[Tensor, "*batch dim"], matrix: nn.Module, bias: Tensor | None = None
) -> Float[Tensor, "*batch outputs"]:
    """W h + b, the matrix being a head's, or an embedding that serves as one; it may have a `product` of its own."""
    if hasattr(type(matrix), "product"):
        return matrix.product(hidden, bias)
    return F.linear(hidden, matrix.weight, bias)


def by_hand(x: Tensor) -> bool:
    """Whether the hand-written backward passes pay: eager training on a processor."""
    return x.is_cpu and torch.is_grad_enabled() and not torch.compiler.is_compiling()


class RMSNorm(nn.Module):
    """y = w · x / √(mean(x²) + ε) over the last dimension (Zhang & Sennrich 2019)."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: Float[Tensor, "... dim"], weight: Float[Tensor, "*rows dim"], eps: float) -> Float[Tensor, "... dim"]:
    """RMSNorm; `weight` may have a row for each of the dimensions before the last (one for each head, say)."""
    if by_hand(x):
        return _RMSNorm.apply(x, weight, eps)
    return (
        F.rms_norm(x, x.shape[-1:], None, eps) * weight if weight.ndim > 1 else F.rms_norm(x, weight.shape, weight, eps)
    )


class _RMSNorm(torch.autograd.Function):
    """∂L/∂x = s (g − u mean(g u)) with s = 1 / √(mean(x²) + ε), u = s x and g = w ∂L/∂y; ∂L/∂w = Σ u ∂L/∂y."""

    @staticmethod
    def forward(context, x, weight, eps):
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = (norm * norm).mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
        context.save_for_backward(x, scale, weight)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(context, gradient):
        x, scale, weight = context.saved_tensors
        if weight.ndim == 1 and {x.dtype, gradient.dtype, weight.dtype} == {torch.float32}:
            # LayerNorm's kernel at a mean of 0: one pass over memory; it takes off g's mean too, which is given back.
            of_x, of_weight, _ = torch.ops.aten.native_layer_norm_backward(
                gradient, x, weight.shape, torch.zeros_like(scale), scale, weight, None, (True, True, False)
            )
            return of_x.addcmul_((gradient @ weight).unsqueeze(-1), scale, value=1 / x.shape[-1]), of_weight, None
        unit = x * scale
        of_weight = gradient * unit
        along = (of_weight * weight).sum(-1, keepdim=True)
        of_x = (gradient * weight).addcmul_(unit, along, value=-1 / x.shape[-1]).mul_(scale)
        return of_x, of_weight.sum(tuple(range(gradient.ndim - weight.ndim))), None


def dropout(x: Float[Tensor, "*shape"], p: float, training: bool) -> Float[Tensor, "*shape"]:
    """Each number zero with probability p while training, and the others larger so that the mean stays (Srivastava
    et al. 2014). On a processor p is a multiple of 2⁻¹⁶: random bits, 16 a number, are drawn at half of torch's cost.
    """
    if not p or not training:
        return x
    return _Dropout.apply(x, p) if by_hand(x) else F.dropout(x, p)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(context, x, p):
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
        dropped = round(p * (1 << 16))
        kept = bits.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - (1 << 15)
        factors = torch.mul(kept, (1 << 16) / ((1 << 16) - dropped)).to(x.dtype)
        context.save_for_backward(factors)
        return x * factors

    @staticmethod
    def backward(context, gradient):
        return gradient * context.saved_tensors[0], None


def gated(gate_up: Float[Tensor, "... two_ffn"], activation: str) -> Float[Tensor, "... ffn"]:
    """act(gate) · up, the two halves of the last dimension being gate and up (Shazeer 2020; with silu: SwiGLU)."""
    if activation in BACKWARD and by_hand(gate_up):
        return _Gated.apply(gate_up, activation)
    gate, up = gate_up.chunk(2, dim=-1)
    return ACTIVATIONS[activation](gate) * up


BACKWARD = {
    "silu": torch.ops.aten.silu_backward.grad_input,
    "gelu_new": partial(torch.ops.aten.gelu_backward.grad_input, approximate="tanh"),
}
"""The derivatives of those activations that gates have."""


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(context, gate_up, activation):
        gate, up = gate_up.chunk(2, dim=-1)
        activated = ACTIVATIONS[activation](gate)
        context.activation = activation
        context.save_for_backward(gate_up, activated)
        return activated * up

    @staticmethod
    def backward(context, gradient):
        gate_up, activated = context.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        result = torch.empty_like(gate_up)
        of_gate, of_up = result.chunk(2, dim=-1)
        torch.mul(gradient, activated, out=of_up)
        BACKWARD[context.activation](gradient * up, gate, grad_input=of_gate)
        return result, None
