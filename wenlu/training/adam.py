"""Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019) over torch's fused operators.

torch.optim's classes import the compiler when they are made, which costs a second; the operators below them do not.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8


class Adam:
    """m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², w ← w − η m̂ / (√v̂ + ε), m̂ and v̂ being free of the bias towards zero.

    `decoupled` is AdamW: w also shrinks by η · decay; otherwise decay · w is added to the gradient.
    """

    def __init__(self, weights: dict[str, Tensor], betas: tuple[float, float], decay: float, *, decoupled: bool):
        self.weights, self._betas, self._decay = weights, betas, decay
        self._update = torch._fused_adamw_ if decoupled else torch._fused_adam_
        self.state = {
            name: {
                "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": torch.zeros_like(weight),
                "step": torch.zeros((), dtype=torch.float32, device=weight.device),
            }
            for name, weight in weights.items()
        }

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update with learning rate `lr`, of the weights that have a gradient."""
        names = [name for name, weight in self.weights.items() if weight.grad is not None]
        if not names:
            return
        states = [self.state[name] for name in names]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        self._update(
            [self.weights[name] for name in names],
            [self.weights[name].grad for name in names],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=lr,
            beta1=self._betas[0],
            beta2=self._betas[1],
            weight_decay=self._decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )


class GradientDescent:
    """w ← w − η (∂L/∂w + decay · w)."""

    def __init__(self, weights: dict[str, Tensor], decay: float):
        self.weights, self._decay = weights, decay
        self.state: dict[str, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update with learning rate `lr`."""
        weights = [weight for weight in self.weights.values() if weight.grad is not None]
        if self._decay:
            torch._foreach_mul_(weights, 1 - lr * self._decay)
        torch._foreach_add_(weights, [weight.grad for weight in weights], alpha=-lr)
