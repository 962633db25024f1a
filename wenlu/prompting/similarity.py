"""How alike texts are, for finding examples like a question: by words (BM25), or by a model's own states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from wenlu.base.errors import UserError
from wenlu.base.log import counted

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import nn

    from wenlu.tokenization.tokenizer import Tokenizer

Embed = Callable[[Sequence[str]], "np.ndarray"]
"""Texts → a vector for each, [texts, dim]."""


def terms(text: str) -> list[str]:
    """What texts are compared by: words, and of Chinese (and its neighbours) characters and pairs of them."""
    from wenlu.data.cleaning.units import units

    found = units(text)
    single = [len(unit) == 1 and not unit.isascii() for unit in found]
    pairs = [a + b for (a, b), (x, y) in zip(pairwise(found), pairwise(single)) if x and y]
    return found + pairs


class Words:
    """Texts by the words they share: BM25 (Robertson & Zaragoza 2009), by bm25s.

    Raises UserError for texts without any word.
    """

    def __init__(self, texts: Sequence[str]):
        import bm25s

        self._terms = [terms(text) for text in texts]
        if not any(self._terms):
            raise UserError("BM25 finds no words in the pool's examples: choose demonstrations in another way")
        self._index = bm25s.BM25()
        self._index.index(self._terms, show_progress=False)

    def to(self, text: str) -> Float[np.ndarray, " texts"]:
        """How well each text answers a query; 0 where they share no word."""
        return self._scores(terms(text))

    def between(self) -> Float[np.ndarray, "texts texts"]:
        """How alike the texts are, in [0, 1]: symmetric, 1 on the diagonal of texts with words."""
        rows = np.stack([self._scores(one) for one in self._terms]).astype(np.float64)
        own = np.sqrt(np.maximum(np.diagonal(rows), 0))
        scaled = rows / np.maximum(np.outer(own, own), 1e-12)
        return np.clip((scaled + scaled.T) / 2, 0, 1)

    def _scores(self, query: list[str]) -> np.ndarray:
        known = [term for term in query if term in self._index.vocab_dict]
        if not known:
            return np.zeros(len(self._terms))
        return np.asarray(self._index.get_scores(known), np.float64)


class Vectors:
    """Texts by the angle between their vectors."""

    def __init__(self, texts: Sequence[str], embed: Embed):
        self._embed = embed
        self._known = self._unit(texts)

    def to(self, text: str) -> Float[np.ndarray, " texts"]:
        """The cosine of each text's vector with a query's, in [-1, 1]."""
        return self._known @ self._unit([text])[0]

    def between(self) -> Float[np.ndarray, "texts texts"]:
        """The cosines of the texts' vectors with each other."""
        return self._known @ self._known.T

    def _unit(self, texts: Sequence[str]) -> np.ndarray:
        found = np.asarray(self._embed(texts), np.float64)
        if found.ndim != 2 or len(found) != len(texts) or not np.isfinite(found).all():
            raise UserError(f"an embedding must give a vector of finite numbers for each of {len(texts)} texts")
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


class FolderEmbedder:
    """A model's own mean hidden states as vectors of texts.

    >>> embed = FolderEmbedder(*load("runs/book"))
    >>> embed(["a stove", "一个火炉"]).shape
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer | None):
        """Raises UserError where they do not belong together."""
        from wenlu.inference.generator import check_together

        check_together(model, tokenizer)
        self._model, self._tokenizer = model, tokenizer
        self._cut: set[str] = set()

    @property
    def cut(self) -> int:
        """How many texts were longer than the model's context, of which only the beginning was read."""
        return len(self._cut)

    @property
    def notes(self) -> tuple[str, ...]:
        """The same in words; nothing where none was."""
        context = self._model.config.context
        told = f"of {counted(self.cut, 'text')} only the first {context:,} tokens were read to choose demonstrations by"
        return (told,) if self.cut else ()

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "texts dim"]:
        """The mean of the last layer's states over a text's tokens (of t5, the encoder's), each text alone."""
        import torch

        from wenlu.inference.reading import evaluating

        found = []
        with evaluating(self._model):
            for text in texts:
                ids = self._ids(text)
                row = torch.tensor([ids], device=next(self._model.parameters()).device)
                read = self._model.encode if self._model.config.family == "t5" else self._model.hidden
                found.append(read(row)[0].float().mean(0).cpu().numpy())
        return np.stack(found) if found else np.zeros((0, self._model.config.dim))

    def _ids(self, text: str) -> list[int]:
        from wenlu.inference.generator import begin_id

        begin = None if self._model.config.family == "t5" else begin_id(self._model, self._tokenizer)
        ids = ([] if begin is None else [begin]) + self._tokenizer.encode(text)
        if not ids:
            raise UserError("a text without tokens has no embedding: leave out the example, or choose in another way")
        limit = self._model.config.context
        if len(ids) > limit:
            self._cut.add(text)
        return ids[:limit]
