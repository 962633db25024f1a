"""Tokens guessed ahead, which the model then checks in one reading instead of one each (Leviathan et al. 2023).

A guess is taken where it is the token that would have been chosen without it: the best one, or the one that the
text's own random number draws. So texts are those of plain decoding, seed for seed, but for near-ties (law 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

from torch import nn

from wenlu.base.errors import UserError
from wenlu.inference.text import Text


class Guesser(Protocol):
    """What guesses for texts that are written side by side, for as long as they are."""

    @property
    def bytes(self) -> int:
        """Memory held for them, beside weights."""

    def guess(self, texts: Sequence[Text], most: Sequence[int]) -> list[list[int]]:
        """Tokens that may follow each text, up to so many."""


@dataclass(frozen=True)
class Lookup:
    """Guesses what came after the last tokens when they stood in the text before (Saxena 2023)."""

    tokens: int = 6
    """Most tokens guessed at once."""
    longest: int = 3
    """How many of the last tokens must stand there alike; fewer where so many do not."""

    def __post_init__(self):
        if self.tokens < 1:
            raise UserError(f"a look-up must guess at least 1 token, not {self.tokens}")
        if self.longest < 1:
            raise UserError(f"a look-up must compare at least 1 token, not {self.longest}")

    def check(self, model: nn.Module, vocab: int | None) -> None:
        """Nothing to be refused: it knows any text."""

    def guesser(self, model: nn.Module, vocab: int | None, chunk: int) -> Guesser:
        """For texts of this model."""
        return _Repeats(self, model.config.family != "t5")


class Ngrams:
    """A text that grows, and where each of its n-grams, n ≤ longest, was seen last; a step takes the same time
    however long the text is."""

    def __init__(self, longest: int):
        self.ids: list[int] = []
        self._noted = 0
        self._after: list[dict[tuple[int, ...], int]] = [{} for _ in range(longest)]

    def guess(self, most: int) -> list[int]:
        """Up to `most` tokens that followed the last ones before, the latest time that most of them stood there;
        none where the last token stands nowhere before."""
        ids = self.ids
        for end in range(self._noted + 1, len(ids)):
            for size, after in enumerate(self._after[:end], 1):
                after[tuple(ids[end - size : end])] = end
        self._noted = max(0, len(ids) - 1)
        for size in range(min(len(self._after), len(ids) - 1), 0, -1):
            at = self._after[size - 1].get(tuple(ids[-size:]))
            if at is not None:
                return ids[at : at + most]
        return []


class _Repeats:
    """`Lookup` for texts side by side."""

    bytes = 0

    def __init__(self, lookup: Lookup, of_prompt: bool):
        self._lookup, self._of_prompt = lookup, of_prompt
        self._known: WeakKeyDictionary[Text, Ngrams] = WeakKeyDictionary()

    def guess(self, texts: Sequence[Text], most: Sequence[int]) -> list[list[int]]:
        return [self._of(text, min(room, self._lookup.tokens)) for text, room in zip(texts, most, strict=True)]

    def _of(self, text: Text, most: int) -> list[int]:
        if most < 1:
            return []
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = Ngrams(self._lookup.longest)
            known.ids.extend(text.request.ids if self._of_prompt else ())
        before = len(text.request.ids) if self._of_prompt else 0
        known.ids.extend(text.ids[len(known.ids) - before :])
        return known.guess(most)
