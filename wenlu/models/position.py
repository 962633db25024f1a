"""Rotary positions (Su et al. 2021), in the half-split form of Llama and Qwen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wenlu.models.layers import by_hand

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Rotary(nn.Module):
    """Tables of cos(p · θ^(−2i/d)) and sin for positions p and pairs i; they grow when a longer text comes."""

    def __init__(self, head_dim: int, theta: float, length: int):
        super().__init__()
        self.head_dim, self.theta = head_dim, theta
        self.register_buffer("cos", torch.empty(0), persistent=False)
        self.register_buffer("sin", torch.empty(0), persistent=False)
        self.extend(length)

    def extend(self, length: int) -> None:
        """Make the tables at least `length` positions long. Angles are computed in f32, as Transformers does."""
        if length <= len(self.cos):
            return
        length = max(length, 2 * len(self.cos))
        device = self.cos.device
        with torch.inference_mode(False):
            pairs = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=device) / self.head_dim
            angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), 1.0 / self.theta**pairs)
            self.cos, self.sin = angles.cos(), angles.sin()

    def forward(
        self, x: Float[Tensor, "batch seq heads head_dim"], positions: Int[Tensor, "batch seq"] | slice
    ) -> Float[Tensor, "batch seq heads head_dim"]:
        """Turn each pair (xᵢ, xᵢ₊d/₂) of every head by its position's angle."""
        cos, sin = self.cos[positions].unsqueeze(-2), self.sin[positions].unsqueeze(-2)
        if by_hand(x):
            return _Rotate.apply(x, cos, sin)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


class _Rotate(torch.autograd.Function):
    """A rotation; its gradient is turned back by the same angles."""

    @staticmethod
    def forward(context, x, cos, sin):
        context.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1.0)

    @staticmethod
    def backward(context, gradient):
        return _turn(gradient, *context.saved_tensors, -1.0), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, direction: float) -> Tensor:
    result = torch.empty_like(x)
    (first, second), (to_first, to_second) = x.chunk(2, dim=-1), result.chunk(2, dim=-1)
    torch.mul(first, cos, out=to_first).addcmul_(second, sin, value=-direction)
    torch.mul(second, cos, out=to_second).addcmul_(first, sin, value=direction)
    return result
