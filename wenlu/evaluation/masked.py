"""How well an encoder restores masked tokens: pseudo-perplexity, and accuracy beside that of a guess."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from wenlu.base.config import at_least
from wenlu.base.errors import UserError
from wenlu.base.log import say
from wenlu.data.batch import NO_TARGET
from wenlu.data.corrupt import Words, mask
from wenlu.data.keyed import HELD_OUT, keys
from wenlu.evaluation.perplexity import exponential, refuse_nonfinite, token_nats
from wenlu.evaluation.windows import Window, at_once, by_length, context_of, cut
from wenlu.inference.generator import check_together
from wenlu.inference.reading import evaluating
from wenlu.metrics.intervals import Estimate, blocks, ratio
from wenlu.models.size import WHOLE_LOGITS
from wenlu.tokenization.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Settings:
    """How texts are cut, and how many tokens are masked one by one."""

    context: int = 0
    """Tokens in a window, [CLS] and [SEP] among them; 0 = as many as the model was trained on."""
    batch: int = 16
    limit: int = 2000
    """Tokens, evenly chosen from all, for the pseudo-perplexity: each costs a window. 0 = all."""

    def __post_init__(self):
        at_least("", self, 0, "context", "limit")
        at_least("", self, 1, "batch")


@dataclass(frozen=True)
class Result:
    """What was measured. Tokens that can be masked are all but special ones, such as those for what is not known."""

    pseudo_nats_per_token: Estimate
    """−log p of a token given all others of its window (Salazar et al. 2020), the mean."""
    pseudo_perplexity: Estimate
    """exp of that. It is no perplexity: each token sees what follows, and the other pieces of its own word."""
    masked_nats_per_token: Estimate | None
    """With 15 % masked at once, as in training, whole words together; the same masks every time. This and the rest are
    None where a text is so short that none is."""
    masked_accuracy: Estimate | None
    unigram_accuracy: Estimate | None
    """Of always naming the commonest token of these very texts: the best that a guess does without looking."""
    advantage: Estimate | None
    """Of the model over that guess, on the same tokens."""
    tokens: int
    """Read."""
    masked_one_by_one: int
    masked_at_once: int
    documents: int
    context: int


Advance = Callable[[float], None]
"""Told which part of all work has been done since the last call."""


def evaluate_masked(
    model: nn.Module,
    tokenizer: Tokenizer | None,
    texts: Iterable[str],
    settings: Settings | None = None,
    advance: Advance | None = None,
) -> Result:
    """Restore tokens of `texts`, cut into windows of `context`.

    Raises UserError for a head that is not for tokens, texts without a token, a tokenizer without [CLS], [SEP] and
    [MASK], a context that the model cannot read, and losses that are not finite.
    """
    settings, advance = settings or Settings(), advance or (lambda _: None)
    check_together(model, tokenizer)
    if model.config.head != "tokens":
        raise UserError(
            f"this bert's head is {model.config.head!r}, which foretells no tokens: give one that was trained to"
        )
    for role in ("cls", "sep", "mask"):
        if getattr(tokenizer, f"{role}_id") is None:
            raise UserError(f"the tokenizer has no {role} token: name its {role}_token in tokenizer_config.json")
    context = context_of(model, settings.context)
    documents = [np.asarray(ids, np.int64) for ids in (tokenizer.encode(text) for text in texts if text) if ids]
    if not documents:
        raise UserError("there is nothing to evaluate: the texts hold no token")
    windows = list(cut(documents, context - 2))
    tokens = sum(map(len, documents))
    words = Words.of(tokenizer)
    places = np.flatnonzero(~words.special[np.concatenate(documents)])
    if unknown := tokens - len(places):
        say(f"{unknown:,} of {tokens:,} tokens stand for what the tokenizer does not know: they are not restored")
    if not len(places):
        raise UserError("there is nothing to evaluate: the tokenizer knows nothing of the texts")
    alone = min(len(places), settings.limit or len(places))
    places = places[np.unique(np.linspace(0, len(places) - 1, alone).round().astype(np.int64))]
    work = alone + len(windows)
    say(f"{alone:,} of {tokens:,} tokens are masked one by one: {work:,} windows of up to {context:,} to compute")
    restore = _Restorer(model, tokenizer, at_once(settings.batch, context), lambda done: advance(done / work))
    with evaluating(model):
        one_by_one, lengths = _one_by_one(restore, windows, len(documents), places)
        nats, hits, guessed, chosen = _at_once(restore, windows, words)
    refuse_nonfinite(one_by_one)
    refuse_nonfinite(nats)
    starts = blocks(lengths[lengths > 0])
    pseudo = ratio(np.add.reduceat(one_by_one, starts), np.diff(np.append(starts, len(one_by_one))))
    asked = chosen.any()
    return Result(
        pseudo,
        exponential(pseudo),
        *(ratio(sums, chosen) if asked else None for sums in (nats, hits, guessed, hits - guessed)),
        tokens,
        len(one_by_one),
        int(chosen.sum()),
        len(documents),
        context,
    )


class _Restorer:
    """A model that is asked for masked tokens."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, batch: int, advance: Advance):
        self.model, self.tokenizer, self.batch, self.advance = model, tokenizer, batch, advance
        self.device = next(model.parameters()).device

    def states(self, ids: np.ndarray, wanted: np.ndarray) -> Tensor:
        """Of the places of `ids` [batch, seq] that are wanted, [CLS] and [SEP] being set around each row."""
        ends = ((0, 0), (1, 1))
        framed = np.pad(ids, ends, constant_values=((0, 0), (self.tokenizer.cls_id, self.tokenizer.sep_id)))
        hidden = self.model.hidden(torch.from_numpy(framed).to(self.device))
        self.advance(len(ids))
        return hidden[torch.from_numpy(np.pad(wanted, ends)).to(self.device)]

    def nats(self, states: Tensor, targets: np.ndarray) -> np.ndarray:
        return token_nats(self.model, states, torch.from_numpy(targets).to(self.device)).cpu().numpy()

    def likeliest(self, states: Tensor) -> np.ndarray:
        rows = max(1, WHOLE_LOGITS // self.model.config.vocab)
        return torch.cat([self.model.head(part).argmax(-1) for part in states.split(rows)]).cpu().numpy()


def _one_by_one(
    restore: _Restorer, windows: list[Window], documents: int, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """−log p of the chosen tokens, each masked alone, in the texts' order; how many each document has of them."""
    ends = np.cumsum([len(window.ids) for window in windows])
    of_window = np.searchsorted(ends, chosen, side="right")
    places = chosen - (ends[of_window] - [len(windows[w].ids) for w in of_window])
    asked = [windows[w] for w in of_window]
    found = np.empty(len(asked))
    for members, ids in by_length(asked, restore.batch):
        wanted = np.arange(ids.shape[1]) == places[members][:, None]
        states = restore.states(np.where(wanted, restore.tokenizer.mask_id, ids), wanted)
        found[members] = restore.nats(states, ids[wanted])
    return found, np.bincount([window.document for window in asked], minlength=documents)


def _at_once(
    restore: _Restorer, windows: list[Window], words: Words
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of every window: nats, right answers, those of the guess, and the number, of the tokens that were chosen."""
    counts = np.bincount(np.concatenate([window.ids for window in windows]), minlength=len(words.special))
    commonest = int(np.argmax(np.where(words.special, -1, counts)))
    nats, hits, guessed, chosen = np.zeros((4, len(windows)))
    for members, ids in by_length(windows, restore.batch):
        numbers = np.asarray(members, np.int64)
        masked, targets = mask(ids, keys(0, numbers, np.full_like(numbers, HELD_OUT)), words, restore.tokenizer.mask_id)
        wanted = targets != NO_TARGET
        states = restore.states(masked, wanted)
        rows, answers = np.nonzero(wanted)[0], ids[wanted]
        for sums, values in (
            (nats, restore.nats(states, answers)),
            (hits, restore.likeliest(states) == answers),
            (guessed, answers == commonest),
            (chosen, np.ones(len(rows))),
        ):
            sums[members] = np.bincount(rows, values, minlength=len(members))
    return nats, hits, guessed, chosen
