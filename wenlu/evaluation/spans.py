"""How well a T5 restores spans that were taken out of texts: nats per token of its targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from wenlu.base.config import at_least
from wenlu.base.errors import UserError
from wenlu.data.corrupt import sentinels, span_counts, span_lengths, take_out
from wenlu.data.keyed import HELD_OUT, keys
from wenlu.evaluation.perplexity import exponential, refuse_nonfinite, token_nats
from wenlu.evaluation.windows import at_once, by_length, context_of, cut
from wenlu.inference.generator import check_together
from wenlu.inference.reading import evaluating
from wenlu.metrics.intervals import Estimate, ratio
from wenlu.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class Settings:
    """How texts are cut."""

    context: int = 0
    """Tokens of an input; 0 = as many as the model was trained on."""
    batch: int = 16

    def __post_init__(self):
        at_least("", self, 0, "context")
        at_least("", self, 1, "batch")


@dataclass(frozen=True)
class Result:
    """What was measured; the same spans every time."""

    nats_per_target: Estimate
    """Over all targets: the tokens taken out, the sentinels before them, and the end, as T5's own loss is."""
    perplexity_of_targets: Estimate
    """exp of that; to be compared only between models with the same tokenizer."""
    tokens: int
    """Read."""
    targets: int
    left_out: int
    """Tokens that stood alone at the end of a document, so that nothing could be taken out."""
    documents: int
    context: int


def evaluate_spans(
    model: nn.Module,
    tokenizer: Tokenizer | None,
    texts: Iterable[str],
    settings: Settings | None = None,
    advance: Callable[[float], None] | None = None,
) -> Result:
    """Restore spans of `texts`; `advance` is told which part of all has been done since the last call.

    Raises UserError for texts without two tokens, a tokenizer without sentinels enough or without end and pad token,
    and losses that are not finite.
    """
    settings, advance = settings or Settings(), advance or (lambda _: None)
    check_together(model, tokenizer)
    context = context_of(model, settings.context)
    length, _ = span_lengths(context)
    names = sentinels(tokenizer)
    if span_counts(length)[1] > len(names) or None in (tokenizer.eos_id, tokenizer.pad_id):
        raise UserError(
            f"spans are taken out with {span_counts(length)[1]} sentinels (<extra_id_0> and so on), an end and a pad "
            f"token, and this tokenizer has {len(names)} sentinels: choose a T5's, or a shorter --context"
        )
    documents = [np.asarray(ids, np.int64) for ids in (tokenizer.encode(text) for text in texts if text) if ids]
    every = list(cut(documents, length))
    windows = [window for window in every if len(window.ids) > 1]
    if not windows:
        raise UserError("there is nothing to evaluate: no text holds two tokens")
    nats, counts = np.zeros(len(windows)), np.zeros(len(windows))
    with evaluating(model):
        for members, ids in by_length(windows, at_once(settings.batch, context)):
            numbers = np.asarray(members, np.int64)
            key = keys(0, numbers, np.full_like(numbers, HELD_OUT))
            inputs, targets = take_out(ids, key, names, tokenizer.eos_id)
            nats[members] = _nats(model, inputs, targets, tokenizer.pad_id)
            counts[members] = targets.shape[1]
            advance(len(members) / len(windows))
    refuse_nonfinite(nats)
    mean = ratio(nats, counts)
    read, left = sum(map(len, documents)), len(every) - len(windows)
    return Result(mean, exponential(mean), read, int(counts.sum()), left, len(documents), context)


def _nats(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, begin: int) -> np.ndarray:
    """Of every row the sum."""
    device = next(model.parameters()).device
    begun = np.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=begin)
    ids, decoder_ids, wanted = (torch.from_numpy(array).to(device) for array in (inputs, begun, targets))
    nats = token_nats(model, model.hidden(ids, decoder_ids).flatten(0, 1), wanted.flatten())
    return nats.view(wanted.shape).sum(1).cpu().numpy()
