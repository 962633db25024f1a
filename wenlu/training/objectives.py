"""What a run minimises: `(model, batch) → (loss_sum, count)`, in nats, so that averages over real tokens are exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.models.config import ModelConfig
from wenlu.models.size import WHOLE_LOGITS

if TYPE_CHECKING:
    from jaxtyping import Float, Int


Batch = dict[str, Tensor]
NO_TARGET = -100
"""Stands in `targets` where nothing is to be learned; torch's own value for it."""


Loss = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Objective:
    """What a run minimises, and how it is told."""

    name: str
    loss: Loss
    """(model, batch) → the summed loss in nats, and how many targets it is of."""
    judge: Callable[[nn.Module, Batch], dict[str, Tensor]]
    """(model, held-out batch) → sums over it, `loss` and `count` among them; they are added up over batches."""
    figures: Callable[[dict[str, float]], dict[str, Any]]
    """Such sums over all that is held out → what is noted beside the loss."""
    unit: str = "nats/token"
    writes: bool = False
    """Whether the model can go on with a text, so that samples show how far it is."""


def causal(model: nn.Module, batch: Batch) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Next-token cross-entropy, −Σ log p(targetₜ | id₁…idₜ), and the number of targets.

    `ids` and `targets` are [batch, seq]; `positions` and `segments` are for texts packed in one row.
    """
    packed = {name: batch[name] for name in ("positions", "segments") if name in batch}
    targets = batch["targets"]
    return head_loss(model, model.hidden(batch["ids"], **packed), targets), (targets != NO_TARGET).sum()


def judge_causal(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The loss, and the `bytes` of text that the targets bring, where the batch says so."""
    loss, count = causal(model, batch)
    return {"loss": loss, "count": count} | ({"bytes": batch["bytes"].sum()} if "bytes" in batch else {})


def bits_per_byte(sums: dict[str, float]) -> dict[str, Any]:
    """Of the same text as the loss; None where its bytes are not known, since the tokenizer loses some."""
    known = "bytes" in sums
    return {"bits_per_byte": sums["loss"] / max(1, sums["bytes"]) / math.log(2) if known else None}


def masked(model: nn.Module, batch: Batch) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Cross-entropy of the tokens that were chosen to be foretold (Devlin et al. 2018), and their number.

    `ids` and `targets` are [batch, seq]; the head looks at nothing but the chosen.
    """
    hidden, targets = _chosen(model, batch)
    return head_loss(model, hidden[None], targets[None]), targets.new_tensor(targets.numel())


def judge_masked(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The loss, and how many of the chosen tokens are the likeliest ones."""
    hidden, targets = _chosen(model, batch)
    loss = head_loss(model, hidden[None], targets[None])
    return {"loss": loss, "count": torch.tensor(targets.numel()), "right": right(model, hidden, targets)}


def _chosen(model: nn.Module, batch: Batch) -> tuple[Float[Tensor, "chosen dim"], Int[Tensor, " chosen"]]:
    """States and targets of the places that have one."""
    more = {name: batch[name] for name in ("positions", "segments", "types") if name in batch}
    hidden, targets = model.hidden(batch["ids"], **more).flatten(0, 1), batch["targets"].flatten()
    places = (targets != NO_TARGET).nonzero().squeeze(1)
    return hidden.index_select(0, places), targets.index_select(0, places)


def right(model: nn.Module, hidden: Float[Tensor, "places dim"], targets: Int[Tensor, " places"]) -> Int[Tensor, ""]:
    """How many targets are the likeliest token; the logits of a large vocabulary are made in parts."""
    rows = max(1, WHOLE_LOGITS // model.config.vocab)
    parts = zip(hidden.split(rows), targets.split(rows), strict=True)
    return sum(((model.head(h).argmax(-1) == t).sum() for h, t in parts), torch.zeros((), dtype=torch.int64))


def text_to_text(model: nn.Module, batch: Batch) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Cross-entropy of a target text given a source, −Σ log p(targetₜ | ids, decoder_id₁…decoder_idₜ), and its length.

    `ids` are [batch, source], `decoder_ids` and `targets` [batch, target]; padding has the segment -1.
    """
    names = ("segments", "decoder_segments")
    more = {name: batch[name] for name in names if name in batch}
    hidden, targets = model.hidden(batch["ids"], batch["decoder_ids"], **more), batch["targets"]
    return head_loss(model, hidden, targets), (targets != NO_TARGET).sum()


def judged(loss: Loss) -> Callable[[nn.Module, Batch], dict[str, Tensor]]:
    """The judge of an objective that is told by its loss alone."""

    def judge(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return dict(zip(("loss", "count"), loss(model, batch), strict=True))

    return judge


def masked_accuracy(sums: dict[str, float]) -> dict[str, Any]:
    """The part of the chosen tokens that are the likeliest ones."""
    return {"masked_accuracy": sums["right"] / sums["count"]}


def no_figures(sums: dict[str, float]) -> dict[str, Any]:
    """For what is told by its loss alone."""
    return {}


CAUSAL = Objective("next token", causal, judge_causal, bits_per_byte, writes=True)
MASKED = Objective("masked tokens", masked, judge_masked, masked_accuracy, "nats/masked token")
TEXT_TO_TEXT = Objective("text to text", text_to_text, judged(text_to_text), no_figures)
OBJECTIVES = {
    ("lstm", "tokens"): CAUSAL,
    ("gpt2", "tokens"): CAUSAL,
    ("llama", "tokens"): CAUSAL,
    ("qwen2", "tokens"): CAUSAL,
    ("qwen3", "tokens"): CAUSAL,
    ("mistral", "tokens"): CAUSAL,
    ("bert", "tokens"): MASKED,
    ("t5", "tokens"): TEXT_TO_TEXT,
}
"""(family, head) → what such a model is trained for."""


def objective_of(config: ModelConfig) -> Objective:
    """What a model of this family and head is trained for; UserError where that is unknown."""
    if (config.family, config.head) not in OBJECTIVES:
        raise UserError(
            f"no training is known for a {config.family} with the head {config.head!r}: take model.head tokens"
        )
    return OBJECTIVES[config.family, config.head]


def head_loss(
    model: nn.Module, hidden: Float[Tensor, "batch seq dim"], targets: Int[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Summed cross-entropy of `model.head(hidden)`; no more than `WHOLE_LOGITS` logits exist at once."""
    hidden, targets = hidden.flatten(0, 1), targets.flatten()
    rows = max(1, WHOLE_LOGITS // model.config.vocab)
    if hidden.shape[0] <= rows:
        return F.cross_entropy(model.head(hidden).float(), targets, reduction="sum")
    return _ChunkedLoss.apply(model.head, rows, torch.is_grad_enabled(), targets, hidden, *model.parameters())


class _ChunkedLoss(torch.autograd.Function):
    """Forward computes the gradients too, chunk by chunk, so that no logits are kept and none are computed twice."""

    @staticmethod
    def forward(context, head, rows, wanted, targets, hidden, *parameters):
        """`wanted`: whether gradients are; in here torch has them switched off, and in evaluation none are."""
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
        return None, None, None, None, hidden_gradient * scale, *(s if s is None else s * scale for s in sums)
