"""Muon: momentum, made orthogonal, for the hidden matrices (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic a·x + b·x³ + c·x⁵, steep at zero, whose iterates stay near 1 (same source)."""


def orthogonalise(matrices: Float[Tensor, "count rows columns"], iterations: int = 5) -> Tensor:
    """Replace each matrix U S Vᵀ by about U Vᵀ with Newton–Schulz iterations; rows ≤ columns is the cheap way round."""
    a, b, c = NEWTON_SCHULZ
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class Muon:
    """Updates every hidden matrix; those of one shape (or transposed) are made orthogonal together in one product.

    A parameter that stacks several matrices (query, key and value; gate and up) is split along its rows by `parts`.
    """

    def __init__(self, matrices: dict[str, Tensor], parts: dict[str, tuple[int, ...]], momentum: float, decay: float):
        self._momentum, self._decay = momentum, decay
        self.matrices = matrices
        self.buffers = {name: torch.zeros_like(matrix) for name, matrix in matrices.items()}
        self._groups: dict[tuple[int, int], list[tuple[str, int, int]]] = {}
        for name, matrix in matrices.items():
            start = 0
            for rows in parts.get(name, (matrix.shape[0],)):
                shape = tuple(sorted((rows, matrix.shape[1])))
                self._groups.setdefault(shape, []).append((name, start, rows))
                start += rows

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update with learning rate `lr`, scaled by √(rows / columns) where that exceeds 1."""
        gradients = [matrix.grad for matrix in self.matrices.values()]
        buffers = list(self.buffers.values())
        torch._foreach_lerp_(buffers, gradients, 1 - self._momentum)
        ahead = dict(zip(self.matrices, torch._foreach_lerp(gradients, buffers, self._momentum), strict=True))
        if self._decay:
            torch._foreach_mul_(list(self.matrices.values()), 1 - lr * self._decay)
        for members in self._groups.values():
            views = [ahead[name][start : start + rows] for name, start, rows in members]
            tall = [view.shape[0] > view.shape[1] for view in views]
            stacked = torch.stack([view.T if flip else view for view, flip in zip(views, tall, strict=True)])
            for (name, start, rows), update, flip in zip(members, orthogonalise(stacked), tall, strict=True):
                target = self.matrices[name][start : start + rows]
                target.add_(update.T if flip else update, alpha=-lr * math.sqrt(max(1.0, rows / target.shape[1])))
