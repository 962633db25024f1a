"""How probable texts are after other texts: what evaluation and prompting both stand on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from torch import nn

from wenlu.base.errors import UserError
from wenlu.inference.encoded import restored, written
from wenlu.inference.generator import begin_id, check_together, end_ids
from wenlu.inference.reading import check_prompt, evaluating
from wenlu.inference.trie import Trie, log_probabilities
from wenlu.models.config import ROTARY
from wenlu.tokenization.encoder import require_unicode
from wenlu.tokenization.tokenizer import Tokenizer

PART = 128
"""Texts are encoded in parts of about so many characters, each once however many begin with it."""


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


class Pair(NamedTuple):
    """A prefix and a continuation as the model reads them."""

    prefix: Sequence[int]
    continuation: Sequence[int]
    bytes: int
    """Of the continuation's text in UTF-8."""
    apart: bool = False
    """Whether a token would span the border between them, so that both were encoded apart."""


class Scorer:
    """A model and its tokenizer as a judge of texts.

    What texts begin with alike is read once (`trie`), unless it is short beside them. By a t5, continuations are
    answers to the prefix; by a bert, each of their tokens is restored from all others: a pseudo-log-probability, no
    probability of a text.

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
        """So far: tokens that were computed, those of texts that begin alike counted once, and tokens of all prefixes
        with each of their continuations."""
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
        scores = iter(self.score_pairs(self.pairs(queries), len(queries), advance))
        return [[next(scores) for _ in query.continuations] for query in queries]

    def score_pairs(
        self, pairs: Sequence[Pair], parts: int = 1, advance: Callable[[int], None] | None = None
    ) -> list[Score]:
        """The same for what `pairs` gave already. `advance` is told how many of so many parts more are done."""
        self._check(pairs)
        progress = _Progress(parts, advance)
        with evaluating(self._model):
            found = self._found(pairs, progress)
        progress.end()
        return [
            Score(tuple(values.tolist()), pair.bytes, bool(best.all()))
            for pair, (values, best) in zip(pairs, found, strict=True)
        ]

    def pairs(self, queries: Sequence[Query]) -> list[Pair]:
        """Prefix and continuation as the model reads them, of every continuation of every query.

        A text is cut where its prefix, encoded alone, ends; space at the end of a prefix belongs to what follows (so
        lm-evaluation-harness has it). Where a token would span the border, both are encoded apart. Every text is
        encoded once, and the pairs of a query hold the same prefix.
        """
        texts = [self._texts(query.prefix, after) for query in queries for after in query.continuations]
        ids = self._ids([text for before, whole, _ in texts for text in (before, whole)])
        alone = [self._answers or not _begins(ids[whole], ids[before]) for before, whole, _ in texts]
        ids |= self._ids([after for (_, _, after), is_alone in zip(texts, alone, strict=True) if is_alone])
        found, rest = [], iter(zip(texts, alone, strict=True))
        for query in queries:
            prefix: list[int] = []
            for continuation, ((before, whole, after), is_alone) in zip(query.continuations, rest):
                prefix = prefix or self._prefix(query.prefix, ids[before])
                follow = ids[after] if is_alone else ids[whole][len(ids[before]) :]
                found.append(Pair(prefix, follow, len(continuation.encode()), is_alone and not self._answers))
        return found

    @property
    def _answers(self) -> bool:
        """Whether what a model reads and what it writes are texts of their own."""
        return self._model.config.family == "t5"

    def _texts(self, prefix: str | tuple[int, ...], continuation: str) -> tuple[str, str, str]:
        """What stands before the border, that with what follows, and what follows it."""
        if not continuation:
            raise UserError("a continuation is empty: there is nothing to score")
        if not isinstance(prefix, str):
            return "", continuation, continuation
        if self._answers:
            return prefix, continuation, continuation
        before = prefix.rstrip()
        after = prefix[len(before) :] + continuation
        return before, before + after, after

    def _ids(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Of each text, encoded in parts where the tokenizer may be given such: what begins alike is encoded once."""
        texts = list(dict.fromkeys(texts))
        for text in texts:
            require_unicode(text)
        parts = {text: list(self._tokenizer.cut(text, PART)) for text in texts}
        different = list(dict.fromkeys(chain.from_iterable(parts.values())))
        ids = dict(zip(different, self._tokenizer.encode_batch(different), strict=True))
        return {text: list(chain.from_iterable(map(ids.__getitem__, of_text))) for text, of_text in parts.items()}

    def _prefix(self, given: str | tuple[int, ...], ids: list[int]) -> list[int]:
        if not isinstance(given, str):
            return list(given)
        return ids + end_ids(self._model, self._tokenizer) if self._answers else self._beginning + ids

    @property
    def _beginning(self) -> list[int]:
        if self._model.config.family == "bert":
            return []
        begin = begin_id(self._model, self._tokenizer)
        return [] if begin is None else [begin]

    def _check(self, pairs: Sequence[Pair]) -> None:
        config = self._model.config
        bert = config.family == "bert"
        if not bert:
            for prefix in {id(pair.prefix): pair.prefix for pair in pairs}.values():
                check_prompt(config, prefix)
        for pair in pairs:
            length = len(pair.prefix) + len(pair.continuation) + 2 * bert
            # The last token of a text is asked for, but not read.
            if (bert and length > config.context) or (config.family == "gpt2" and length - 1 > config.context):
                raise UserError(
                    f"a text has {length} tokens, but this {config.family} reads at most {config.context}: "
                    "shorten the prompt"
                )
            self.beyond_context += config.family in ROTARY and length - 1 > config.context

    def _found(self, pairs: Sequence[Pair], progress: _Progress) -> list[tuple[np.ndarray, np.ndarray]]:
        if not pairs:
            return []
        family, vocab = self._model.config.family, self._tokenizer.vocab
        texts = [(pair.prefix, pair.continuation) for pair in pairs]
        self.tokens_given += sum(len(prefix) + len(continuation) for prefix, continuation in texts)
        if family in ("t5", "bert"):
            progress.whole = len(texts)
            if family == "t5":
                self.tokens_read += sum(map(len, {tuple(prefix) for prefix, _ in texts}))
                self.tokens_read += sum(len(continuation) for _, continuation in texts)
                return written(self._model, texts, vocab, progress)
            self.tokens_read += sum((len(a) + len(b) + 2) * len(b) for a, b in texts)
            return restored(self._model, self._tokenizer, texts, progress)
        before = {id(prefix): np.asarray(prefix, np.int64) for prefix, _ in texts}
        wholes = [np.append(before[id(prefix)], np.asarray(after, np.int64)) for prefix, after in texts]
        trie = Trie.of([(whole, len(prefix)) for whole, (prefix, _) in zip(wholes, texts, strict=True)])
        progress.whole = len(trie.read)
        self.tokens_read += progress.whole
        values, best = log_probabilities(self._model, trie, vocab, progress)
        return [(values[nodes], best[nodes]) for nodes in trie.nodes]


def _begins(whole: list[int], before: list[int]) -> bool:
    """Whether the tokens of a text begin with those of its beginning, and go on."""
    return len(whole) > len(before) and whole[: len(before)] == before


class _Progress:
    """Work that is done, told in so many parts."""

    def __init__(self, parts: int, advance: Callable[[int], None] | None):
        self._parts, self._advance = parts, advance
        self.whole, self._done, self._told = 1, 0, 0

    def __call__(self, done: int) -> None:
        self._done += done
        self._tell(self._parts * self._done // self.whole)

    def end(self) -> None:
        self._tell(self._parts)

    def _tell(self, parts: int) -> None:
        if self._advance and parts > self._told:
            self._advance(parts - self._told)
            self._told = parts
