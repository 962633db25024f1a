"""What a run minimises: `(model, batch) → (loss_sum, count)`, in nats, so that averages over real tokens are exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.data.batch import NO_TARGET
from wenlu.metrics.scores import entity_counts, f1
from wenlu.models.config import ModelConfig
from wenlu.models.size import WHOLE_LOGITS
from wenlu.training.cross_entropy import cross_entropy, replace_by_gradient

if TYPE_CHECKING:
    from jaxtyping import Float, Int


Batch = dict[str, Tensor]


INPUTS = ("ids", "decoder_ids", "positions", "segments", "decoder_segments", "types")
"""Entries of a batch that a model reads."""
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


def masked(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Cross-entropy of the tokens that were chosen to be foretold (Devlin et al. 2018), and their number.

    `ids` and `targets` are [batch, seq]; the head looks at nothing but the chosen.
    """
    hidden, targets = _chosen(model, batch)
    return head_loss(model, hidden[None], targets[None], smoothing), targets.new_tensor(targets.numel())


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


def text_to_text(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Cross-entropy of a target text given a source, −Σ log p(targetₜ | ids, decoder_id₁…decoder_idₜ), and its length.

    `ids` are [batch, source], `decoder_ids` and `targets` [batch, target]; padding has the segment -1.
    """
    names = ("segments", "decoder_segments")
    more = {name: batch[name] for name in names if name in batch}
    hidden, targets = model.hidden(batch["ids"], batch["decoder_ids"], **more), batch["targets"]
    return head_loss(model, hidden, targets, smoothing), (targets != NO_TARGET).sum()


def judged(loss: Loss) -> Callable[[nn.Module, Batch], dict[str, Tensor]]:
    """The judge of an objective that is told by its loss alone."""

    def judge(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return dict(zip(("loss", "count"), loss(model, batch), strict=True))

    return judge


def by_row(name: str, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """What is found for each row of a batch, [rows] each: `loss`, `count`, `right`, and by the form (chat, pairs,
    classify, tag or span) what its scores are made of. Losses are summed cross-entropies in nats.
    """
    return {"chat": _words, "pairs": _words, "classify": _labels, "tag": _tags, "span": _spans}[name](model, batch)


def _words(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    hidden, targets = model.hidden(**inputs), batch["targets"]
    rows, places = (targets != NO_TARGET).nonzero(as_tuple=True)
    hidden, targets = hidden[rows, places], targets[rows, places]
    at_once = max(1, WHOLE_LOGITS // model.config.vocab)
    losses, right = [], []
    for h, t in zip(hidden.split(at_once), targets.split(at_once), strict=True):
        logits = model.head(h).float()
        losses.append(F.cross_entropy(logits, t, reduction="none"))
        right.append(logits.argmax(-1) == t)
    return _summed(rows, len(batch["targets"]), torch.cat(losses), torch.cat(right))


def _labels(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    logits, labels = outputs(model, batch), batch["labels"]
    found = logits.argmax(-1)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return {"loss": losses, "count": torch.ones_like(labels), "right": found == labels, "found": found, "gold": labels}


def _tags(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    logits, labels = outputs(model, batch), batch["labels"]
    rows, places = (labels != NO_TARGET).nonzero(as_tuple=True)
    logits, gold = logits[rows, places], labels[rows, places]
    losses = F.cross_entropy(logits, gold, reduction="none")
    found, names = logits.argmax(-1), model.config.labels
    counts = []
    for row in range(len(labels)):
        tags = ([names[number] for number in side[rows == row].tolist()] for side in (gold, found))
        counts.append(entity_counts(*tags))
    entities = dict(zip(("entities_right", "entities_found", "entities_gold"), torch.tensor(counts).T))
    return {**_summed(rows, len(labels), losses, found == gold), **entities}


def _spans(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    logits = span_logits(model, batch)
    starts, ends, _ = best_span(logits)
    first, last, score = best_span(logits, empty=False)
    losses = sum(
        F.cross_entropy(logits[..., n], batch[end], reduction="none") for n, end in enumerate(("starts", "ends"))
    )
    right = (starts == batch["starts"]) & (ends == batch["ends"])
    count = torch.ones_like(starts)
    return {"loss": losses, "count": count, "right": right, "first": first, "last": last, "score": score}


def best_span(
    logits: Float[Tensor, "batch seq 2"], longest: int = 64, empty: bool = True
) -> tuple[Int[Tensor, " batch"], Int[Tensor, " batch"], Float[Tensor, " batch"]]:
    """First and last token of the likeliest span of at most `longest` tokens, and the sum of its logits less that of
    no answer, which is the first token alone and, unless `empty`, no candidate (Devlin et al. 2018, 4.2 and 4.3)."""
    starts, ends = logits.unbind(-1)
    sums = starts[:, :, None] + ends[:, None, :]
    seq = logits.shape[1]
    allowed = torch.ones(seq, seq, dtype=torch.bool, device=logits.device).triu().tril(longest - 1)
    allowed[0, int(empty) :] = False
    best = sums.masked_fill(~allowed, float("-inf")).flatten(1).max(1)
    none = starts[:, 0] + ends[:, 0]
    return best.indices // seq, best.indices % seq, best.values - none


def _summed(rows: Tensor, count: int, losses: Tensor, right: Tensor) -> dict[str, Tensor]:
    """Sums of what belongs to the same row."""
    empty = losses.new_zeros(count)
    return {
        "loss": empty.index_add(0, rows, losses),
        "count": empty.index_add(0, rows, torch.ones_like(losses)),
        "right": empty.index_add(0, rows, right.to(losses.dtype)),
    }


def outputs(model: nn.Module, batch: Batch) -> Tensor:
    """What the head makes of a batch, in f32."""
    return model.head(model.hidden(**{name: batch[name] for name in INPUTS if name in batch})).float()


def span_logits(model: nn.Module, batch: Batch) -> Float[Tensor, "batch seq 2"]:
    """Those of tokens that cannot be in an answer, of question and padding, are out of the race."""
    return outputs(model, batch).masked_fill(batch["within"][..., None] == 0, -1e9)


def classification(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Cross-entropy of a label for each row, `labels` [batch], and the number of rows."""
    labels = batch["labels"]
    loss = F.cross_entropy(outputs(model, batch), labels, reduction="sum", label_smoothing=smoothing)
    return loss, labels.new_tensor(len(labels))


def tagging(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Cross-entropy of a label for each token that has one, `labels` [batch, seq], and the number of them."""
    labels = batch["labels"]
    logits = outputs(model, batch).flatten(0, 1)
    loss = F.cross_entropy(logits, labels.flatten(), reduction="sum", label_smoothing=smoothing)
    return loss, (labels != NO_TARGET).sum()


def span_extraction(model: nn.Module, batch: Batch) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Cross-entropy of where an answer begins plus of where it ends, `starts` and `ends` [batch]; number of rows."""
    logits = span_logits(model, batch)
    loss = sum(F.cross_entropy(logits[..., n], batch[end], reduction="sum") for n, end in enumerate(("starts", "ends")))
    return loss, batch["starts"].new_tensor(len(logits))


def summing(name: str) -> Callable[[nn.Module, Batch], dict[str, Tensor]]:
    """The judge of a form: the sums of what `by_row` finds."""

    def judge(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        added = ("loss", "count", "right", "entities_right", "entities_found", "entities_gold")
        return {key: value.sum() for key, value in by_row(name, model, batch).items() if key in added}

    return judge


def accuracy(sums: dict[str, float]) -> dict[str, Any]:
    """The part of the targets that are the likeliest."""
    return {"accuracy": sums["right"] / max(1, sums["count"])}


def entity_f1(sums: dict[str, float]) -> dict[str, Any]:
    """Entities of the right kind and place, as seqeval counts them, and the accuracy of single tags."""
    return {"entity_f1": f1(sums["entities_right"], sums["entities_found"], sums["entities_gold"]), **accuracy(sums)}


def masked_accuracy(sums: dict[str, float]) -> dict[str, Any]:
    """The part of the chosen tokens that are the likeliest ones."""
    return {"masked_accuracy": sums["right"] / sums["count"]}


def no_figures(sums: dict[str, float]) -> dict[str, Any]:
    """For what is told by its loss alone."""
    return {}


CAUSAL = Objective("next token", causal, judge_causal, bits_per_byte, writes=True)
MASKED = Objective("masked tokens", masked, judge_masked, masked_accuracy, "nats/masked token")
TEXT_TO_TEXT = Objective("text to text", text_to_text, judged(text_to_text), no_figures)
TUNING = {
    "chat": Objective("the assistant's tokens", masked, summing("chat"), accuracy),
    "pairs": Objective("text to text", text_to_text, summing("pairs"), accuracy),
    "classify": Objective("classification", classification, summing("classify"), accuracy, "nats/row"),
    "tag": Objective("tagging", tagging, summing("tag"), entity_f1, "nats/tag"),
    "span": Objective("span extraction", span_extraction, summing("span"), accuracy, "nats/row"),
}
"""Form of rows → what a model is tuned for on them."""


def smoothed(objective: Objective, smoothing: float) -> Objective:
    """The same with targets that give a part of their certainty to all classes alike (Szegedy et al. 2016, 7); what is
    held out is judged without."""
    return replace(objective, loss=partial(objective.loss, smoothing=smoothing)) if smoothing else objective


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
            f"no training is known for the family {config.family} with the head {config.head!r}: take model.head tokens"
        )
    return OBJECTIVES[config.family, config.head]


def head_loss(
    model: nn.Module,
    hidden: Float[Tensor, "batch seq dim"],
    targets: Int[Tensor, "batch seq"],
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Summed cross-entropy of `model.head(hidden)`, of targets smoothed by that part; no more than `WHOLE_LOGITS`
    logits exist at once (twice as many in bf16)."""
    hidden, targets = hidden.flatten(0, 1), targets.flatten()
    wanted = torch.is_grad_enabled()
    narrow = wanted and hidden.is_cpu and torch.is_autocast_enabled("cpu")
    parts = -(-hidden.shape[0] * model.config.vocab // (2 * WHOLE_LOGITS if narrow else WHOLE_LOGITS))
    if parts <= 1:
        return cross_entropy(model.head(hidden), targets, smoothing)
    rows = -(-hidden.shape[0] // parts)
    return _ChunkedLoss.apply(model.head, rows, smoothing, wanted, targets, hidden, *model.parameters())


class _ChunkedLoss(torch.autograd.Function):
    """Forward computes the gradients too, chunk by chunk, so that no logits are kept and none are computed twice."""

    @staticmethod
    def forward(context, head, rows, smoothing, wanted, targets, hidden, *parameters):
        """`wanted`: whether gradients are; in here torch has them switched off, and in evaluation none are."""
        total = hidden.new_zeros((), dtype=torch.float32)
        sums = None
        hidden_gradient = torch.empty_like(hidden)
        for start in range(0, hidden.shape[0], rows):
            part = hidden[start : start + rows].detach()
            with torch.set_grad_enabled(wanted):
                part.requires_grad_(wanted)
                logits, of_part = head(part), targets[start : start + rows]
            if not wanted:
                total += cross_entropy(logits, of_part, smoothing)
                continue
            of_logits = logits.detach()
            total += replace_by_gradient(of_logits, of_part, smoothing)
            hidden_part, *new = torch.autograd.grad(logits, [part, *parameters], of_logits, allow_unused=True)
            hidden_gradient[start : start + rows] = hidden_part
            sums = new if sums is None else [s if s is None else s.add_(n) for s, n in zip(sums, new, strict=True)]
        context.gradients = (hidden_gradient, sums)
        return total

    @staticmethod
    def backward(context, scale):
        hidden_gradient, sums = context.gradients
        if scale.is_cpu and scale == 1:
            return None, None, None, None, None, hidden_gradient, *sums
        return None, None, None, None, None, hidden_gradient * scale, *(s if s is None else s * scale for s in sums)
