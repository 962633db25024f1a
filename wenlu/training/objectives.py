"""What a run minimises: `(model, batch) → (loss_sum, count)`, in nats, so that averages over real tokens are exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float, Int

WHOLE_LOGITS = 1 << 21
"""Up to so many logits are made at once (8 MiB in f32); beyond, the head and its loss are computed in chunks.

Larger chunks are at best a tenth faster, and arrays near 32 MiB tear holes into the C library's heap: up to half the
memory of a small model.
"""


def causal(model: nn.Module, windows: Int[Tensor, "batch seq_plus_1"]) -> tuple[Float[Tensor, ""], int]:
    """Next-token cross-entropy, −Σ log p(idₜ₊₁ | id₁…idₜ), and the number of targets."""
    ids, targets = windows[:, :-1], windows[:, 1:]
    return head_loss(model, model.hidden(ids), targets), targets.numel()


def head_loss(
    model: nn.Module, hidden: Float[Tensor, "batch seq dim"], targets: Int[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Summed cross-entropy of `model.head(hidden)`; with a large vocabulary the logits never exist all at once."""
    hidden, targets = hidden.flatten(0, 1), targets.flatten()
    rows = max(1, WHOLE_LOGITS // model.config.vocab)
    if hidden.shape[0] <= rows:
        return F.cross_entropy(model.head(hidden).float(), targets, reduction="sum")
    return _ChunkedLoss.apply(model.head, rows, targets, hidden, *model.parameters())


class _ChunkedLoss(torch.autograd.Function):
    """Forward computes the gradients too, chunk by chunk, so that no logits are kept and none are computed twice."""

    @staticmethod
    def forward(context, head, rows, targets, hidden, *parameters):
        wanted = any(context.needs_input_grad)
        total = hidden.new_zeros((), dtype=torch.float32)
        sums = None
        hidden_gradient = torch.empty_like(hidden)
        for start in range(0, hidden.shape[0], rows):
            part = hidden[start : start + rows].detach()
            with torch.set_grad_enabled(wanted):
                part.requires_grad_(wanted)
                loss = F.cross_entropy(head(part).float(), targets[start : start + rows], reduction="sum")
            total += loss.detach()
            if wanted:
                of_part, *new = torch.autograd.grad(loss, [part, *parameters], allow_unused=True)
                hidden_gradient[start : start + rows] = of_part
                sums = new if sums is None else [s if s is None else s.add_(n) for s, n in zip(sums, new, strict=True)]
        context.gradients = (hidden_gradient, sums)
        return total

    @staticmethod
    def backward(context, scale):
        hidden_gradient, sums = context.gradients
        return None, None, None, hidden_gradient * scale, *(s if s is None else s * scale for s in sums)
