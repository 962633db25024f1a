"""Tokens guessed ahead, which the model then checks in one reading instead of one each (Leviathan et al. 2023).

A guess is taken where it is the token that would have been chosen without it: the best one, or the one that the
text's own random number draws. So texts are those of plain decoding, seed for seed, but for near-ties (law 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wenlu.base.errors import UserError


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

    def guess(self, ids: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that may follow; none where the end of the text stands nowhere before."""
        most, best, at = min(most, self.tokens), 0, 0
        if most < 1:
            return []
        for place in range(len(ids) - 2, -1, -1):
            if ids[place] != ids[-1]:
                continue
            alike = 1
            while alike < min(self.longest, place + 1) and ids[place - alike] == ids[-1 - alike]:
                alike += 1
            if alike > best:
                best, at = alike, place + 1
            if best == self.longest:
                break
        return list(ids[at : at + most]) if best else []
