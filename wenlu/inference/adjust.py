"""What is asked of a text besides its prompt: tokens favoured or barred, repetition made unlikely."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wenlu.base.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Adjustments:
    """Changes of a text's logits before its next token is chosen, in this order."""

    repetition_penalty: float = 1.0
    """Logits of tokens in prompt and text are divided by it where positive, else multiplied (Keskar et al. 2019)."""
    presence_penalty: float = 0.0
    """Taken from the logits of tokens that the text holds already."""
    frequency_penalty: float = 0.0
    """Taken from them for each time that the text holds them."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(id, what is added to its logit); -inf bars a token."""

    def __post_init__(self):
        if not 0 < self.repetition_penalty < math.inf:
            raise UserError(f"repetition_penalty must be a positive number, 1 for none, not {self.repetition_penalty}")
        for name in ("presence_penalty", "frequency_penalty"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name} must be a number, 0 for none, not {getattr(self, name)}")
        for id, bias in self.logit_bias:
            if math.isnan(bias) or bias == math.inf or id < 0:
                raise UserError(f"logit_bias holds {id}: {bias}; give ids from 0 on, and numbers or -inf")

    @property
    def none(self) -> bool:
        """Whether nothing is changed."""
        return self == UNCHANGED

    def applied(
        self, logits: Float[Tensor, " vocab"], prompt: Sequence[int], written: Sequence[int]
    ) -> Float[Tensor, " vocab"]:
        """New logits of the token after `prompt` and `written`."""
        logits = logits.float().clone()
        if self.repetition_penalty != 1:
            seen = torch.tensor([id for id in {*prompt, *written} if id < len(logits)], device=logits.device)
            old = logits[seen]
            logits[seen] = torch.where(old > 0, old / self.repetition_penalty, old * self.repetition_penalty)
        if (self.presence_penalty or self.frequency_penalty) and written:
            ids, counts = zip(*Counter(written).items(), strict=True)
            often = torch.tensor(counts, dtype=logits.dtype, device=logits.device)
            logits[torch.tensor(ids, device=logits.device)] -= self.presence_penalty + self.frequency_penalty * often
        if self.logit_bias:
            ids, biases = zip(*self.logit_bias, strict=True)
            logits.index_add_(0, torch.tensor(ids, device=logits.device), logits.new_tensor(biases))
        return logits


UNCHANGED = Adjustments()
