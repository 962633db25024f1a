"""How probable texts are after other texts: what evaluation and prompting both stand on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from wenlu.base.errors import UserError
from wenlu.inference.encoded import restored, written
from wenlu.inference.generator import begin_id, check_together, end_ids
from wenlu.inference.reading import check_prompt, evaluating
from wenlu.inference.trie import Trie, log_probabilities
from wenlu.models.config import ROTARY
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


Pair = tuple[list[int], list[int]]
"""Ids of a prefix, and those of a continuation."""


class Scorer:
    """A model and its tokenizer as a judge of texts.

    What texts begin with alike is read once (`trie`). By a t5, continuations are answers to the prefix; by a bert, each
    of their tokens is restored from all others: a pseudo-log-probability, no probability of a text.

    >>> model, tokenizer = load("runs/book")
    >>> Scorer(model, tokenizer).score("Two and two are", [" four.", " five."])
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer | None):
        """Raises UserError where they do not belong together, and for a bert that does not restore tokens."""
        check_together(model, tokenizer)
        config = model.config
        if config.family == "bert":
            if config.head != "tokens":
                raise UserError(f"this bert's head is {config.head!r}, which foretells no tokens: it scores no texts")
            for role in ("cls", "sep", "mask"):
                if getattr(tokenizer, f"{role}_id") is None:
                    raise UserError(f"the tokenizer has no {role} token: name it in tokenizer_config.json")
        self._model, self._tokenizer = model, tokenizer
        self.tokens_read = self.tokens_given = 0
        """So far: tokens that were computed, and tokens of all prefixes with each of their continuations."""
        self.beyond_context = 0
        """Texts so far that are longer than the longest sequence that a rotary model was trained on."""

    def score(self, prefix: str | Sequence[int], continuations: Sequence[str]) -> list[Score]:
        """Each continuation's, after one prefix."""
        return self.score_all([Query(prefix if isinstance(prefix, str) else tuple(prefix), tuple(continuations))])[0]

    def score_all(self, queries: Sequence[Query], advance: Callable[[int], None] | None = None) -> list[list[Score]]:
        """Each continuation's of each query. `advance` is told how many queries more are done, by the work that is.

        Raises UserError for an empty continuation, a prefix without a token where none begins a document, and a text
        that is longer than the model reads.
        """
        pairs = self.pairs(queries)
        for prefix, continuation in pairs:
            self._check(prefix, continuation)
        progress = _Progress(len(queries), advance)
        with evaluating(self._model):
            found = self._found(pairs, progress)
        progress.end()
        texts = (text for query in queries for text in query.continuations)
        scores = iter(
            [
                Score(tuple(values.tolist()), len(text.encode()), bool(best.all()))
                for text, (values, best) in zip(texts, found, strict=True)
            ]
        )
        return [[next(scores) for _ in query.continuations] for query in queries]

    def pairs(self, queries: Sequence[Query]) -> list[Pair]:
        """Prefix and continuation as the model reads them, of every continuation of every query.

        A text is cut where its prefix, encoded alone, ends; space at the end of a prefix belongs to what follows (so
        lm-evaluation-harness has it). Where a token would span the border, both are encoded apart.
        """
        halves: list[tuple[str, str]] = []
        for query in queries:
            for continuation in query.continuations:
                if not continuation:
                    raise UserError("a continuation is empty: there is nothing to score")
                if not isinstance(query.prefix, str):
                    halves.append(("", continuation))
                    continue
                prefix = query.prefix if self._apart else query.prefix.rstrip()
                continuation = query.prefix[len(prefix) :] + continuation
                halves.append((prefix, continuation))
        wholes = [after if self._apart else before + after for before, after in halves]
        texts = dict.fromkeys([*(before for before, _ in halves), *wholes])
        ids = dict(zip(texts, self._tokenizer.encode_batch(list(texts)), strict=True))
        of_queries = (query for query in queries for _ in query.continuations)
        return [self._pair(query.prefix, *half, ids) for query, half in zip(of_queries, halves, strict=True)]

    @property
    def _apart(self) -> bool:
        """Whether what a model reads and what it writes are texts of their own."""
        return self._model.config.family == "t5"

    def _pair(self, given: str | tuple[int, ...], prefix: str, continuation: str, ids: dict[str, list[int]]) -> Pair:
        if not isinstance(given, str):
            return list(given), ids[continuation]
        before = ids[prefix]
        if self._apart:
            return before + end_ids(self._model, self._tokenizer), ids[continuation]
        whole = ids[prefix + continuation]
        same = whole[: len(before)] == before and len(whole) > len(before)
        after = whole[len(before) :] if same else self._tokenizer.encode(continuation)
        return self._beginning + before, after

    @property
    def _beginning(self) -> list[int]:
        if self._model.config.family == "bert":
            return []
        begin = begin_id(self._model, self._tokenizer)
        return [] if begin is None else [begin]

    def _check(self, prefix: list[int], continuation: list[int]) -> None:
        config = self._model.config
        bert = config.family == "bert"
        if not bert:
            check_prompt(config, prefix)
        length = len(prefix) + len(continuation) + 2 * bert
        # The last token of a text is asked for, but not read.
        if (bert and length > config.context) or (config.family == "gpt2" and length - 1 > config.context):
            raise UserError(
                f"a text has {length} tokens, but this {config.family} reads at most {config.context}: "
                "shorten the prompt"
            )
        self.beyond_context += config.family in ROTARY and length - 1 > config.context

    def _found(self, pairs: list[Pair], progress: _Progress) -> list[tuple[np.ndarray, np.ndarray]]:
        if not pairs:
            return []
        family, vocab = self._model.config.family, self._tokenizer.vocab
        self.tokens_given += sum(len(prefix) + len(continuation) for prefix, continuation in pairs)
        if family in ("t5", "bert"):
            progress.whole = len(pairs)
            if family == "t5":
                self.tokens_read += sum(map(len, {tuple(prefix) for prefix, _ in pairs}))
                self.tokens_read += sum(len(continuation) for _, continuation in pairs)
                return written(self._model, pairs, vocab, progress)
            self.tokens_read += sum((len(a) + len(b) + 2) * len(b) for a, b in pairs)
            return restored(self._model, self._tokenizer, pairs, progress)
        trie = Trie.of([([*prefix, *continuation], len(prefix)) for prefix, continuation in pairs])
        progress.whole = len(trie.read)
        self.tokens_read += progress.whole
        values, best = log_probabilities(self._model, trie, vocab, progress)
        return [(values[nodes], best[nodes]) for nodes in trie.nodes]


class _Progress:
    """Work that is done, told in queries."""

    def __init__(self, queries: int, advance: Callable[[int], None] | None):
        self._queries, self._advance = queries, advance
        self.whole, self._done, self._told = 1, 0, 0

    def __call__(self, done: int) -> None:
        self._done += done
        self._tell(self._queries * self._done // self.whole)

    def end(self) -> None:
        self._tell(self._queries)

    def _tell(self, queries: int) -> None:
        if self._advance and queries > self._told:
            self._advance(queries - self._told)
            self._told = queries
