"""How likely tokens are by the logits of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def log_likelihoods(
    logits: Float[Tensor, "rows vocab"], ids: Int[Tensor, " ids"], rows: Int[Tensor, " ids"] | None = None
) -> Float[Tensor, " ids"]:
    """log p of each id in nats, by its row of logits (None: there is one for each), in f64.

    The vocabulary is summed up in f32: within 1e-5 of f64 (`F.log_softmax` strays further in a large one). Not finite
    where a logit of the row is NaN or +inf.
    """
    logits = logits.float()
    rows = torch.arange(len(ids), device=logits.device) if rows is None else rows
    return logits[rows, ids].double() - logits.logsumexp(-1).double()[rows]


def likeliest(
    logits: Float[Tensor, "rows vocab"], ids: Int[Tensor, " ids"], rows: Int[Tensor, " ids"]
) -> Bool[Tensor, " ids"]:
    """Whether each id has the largest logit of its row; of equal ones, the first."""
    return logits.max(-1).indices[rows] == ids  # in a part of argmax's time
