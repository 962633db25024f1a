"""How probable texts are after other texts: what evaluation and prompting both stand on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from wenlu.inference.generator import begin_id, check_together
from wenlu.inference.reading import evaluating
from wenlu.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class Query:
    """A text, and texts that might follow it."""

    prefix: str | tuple[int, ...]
    """As text, after the token that begins a document; as ids, exactly those (of a chat template, say)."""
    continuations: tuple[str, ...]
    """Whole: with the space before them, where there is one."""


@dataclass(frozen=True)
class Score:
    """Of one continuation."""

    log_probabilities: tuple[float, ...]
    """In nats, of its tokens."""
    bytes: int
    """Of its text in UTF-8."""
    greedy: bool
    """Whether it is what a greedy choice of every token would write."""

    @property
    def log_probability(self) -> float:
        """In nats, of the whole."""
        return sum(self.log_probabilities)

    @property
    def tokens(self) -> int:
        """How many tokens it has."""
        return len(self.log_probabilities)


class Scorer:
    """A model and its tokenizer as a judge of texts.

    >>> model, tokenizer = load("runs/book")
    >>> Scorer(model, tokenizer).score("Two and two are", [" four.", " five."])
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer | None):
        check_together(model, tokenizer)
        self._model, self._tokenizer = model, tokenizer

    def score(self, prefix: str | Sequence[int], continuations: Sequence[str]) -> list[Score]:
        """Each continuation's, after one prefix."""
        return self.score_all([Query(prefix if isinstance(prefix, str) else tuple(prefix), tuple(continuations))])[0]

    def score_all(self, queries: Sequence[Query], advance: Callable[[int], None] | None = None) -> list[list[Score]]:
        """Each continuation's of each query. `advance` is told how many queries are done."""
        found = []
        for query in queries:
            found.append([self._one(query.prefix, text) for text in query.continuations])
            if advance:
                advance(1)
        return found

    def _one(self, prefix: str | tuple[int, ...], continuation: str) -> Score:
        if isinstance(prefix, str):
            bos = begin_id(self._model, self._tokenizer)
            before = ([] if bos is None else [bos]) + self._tokenizer.encode(prefix)
            whole = ([] if bos is None else [bos]) + self._tokenizer.encode(prefix + continuation)
        else:
            before = list(prefix)
            whole = before + self._tokenizer.encode(continuation)
        with evaluating(self._model):
            logits = self._model(torch.tensor([whole]))[0].float().log_softmax(-1)
        places = range(len(before), len(whole))
        values = tuple(logits[place - 1, whole[place]].item() for place in places)
        greedy = all(int(logits[place - 1].argmax()) == whole[place] for place in places)
        return Score(values, len(continuation.encode()), greedy)
