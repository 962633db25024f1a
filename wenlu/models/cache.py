"""What a model remembers of the tokens it has read: keys and values, or the LSTM's state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


class KeyValueCache:
    """Keys and values of every layer, [layers, 2, batch, kv_heads, room, head_dim]; the room doubles when used up."""

    def __init__(self, shape: tuple[int, int, int, int, int], like: Tensor):
        layers, batch, heads, room, dim = shape
        self.length = 0
        """Tokens remembered."""
        self._store = like.new_zeros(layers, 2, batch, heads, max(1, room), dim)

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add what a layer computed for new tokens, [batch, kv_heads, new, head_dim]; returns those of all tokens."""
        end = self.length + keys.shape[2]
        if end > self._store.shape[4]:
            larger = self._store.new_zeros(*self._store.shape[:4], max(end, 2 * self._store.shape[4]), keys.shape[3])
            larger[..., : self.length, :] = self._store[..., : self.length, :]
            self._store = larger
        kept = self._store[layer, :, :, :, :end]
        kept[0, :, :, self.length :], kept[1, :, :, self.length :] = keys, values
        return kept[0], kept[1]

    def select(self, rows: Tensor, same_source: bool = False) -> None:
        """Keep these texts, [kept], some of them perhaps several times."""
        kept = self._store[..., : self.length, :].index_select(2, rows)
        if len(rows) != self._store.shape[2]:
            self._store = self._store.new_zeros(*self._store.shape[:2], len(rows), *self._store.shape[3:])
        self._store[..., : self.length, :] = kept

    def advance(self, tokens: int) -> None:
        """All layers have added their keys and values for `tokens` more tokens."""
        self.length += tokens


@dataclass
class LSTMState:
    """Hidden state and cell of every layer after `length` tokens; empty lists stand for zeros."""

    hidden: list[Float[Tensor, "batch dim"]] = field(default_factory=list)
    cell: list[Float[Tensor, "batch dim"]] = field(default_factory=list)
    length: int = 0

    def select(self, rows: Tensor, same_source: bool = False) -> None:
        """Keep these texts, [kept], some of them perhaps several times."""
        self.hidden, self.cell = ([state[rows] for state in states] for states in (self.hidden, self.cell))


def causal_mask(new: int, before: int, device: torch.device) -> Tensor:
    """[new, before + new], true where a new token may look: at itself and all tokens before it."""
    return torch.ones(new, before + new, dtype=torch.bool, device=device).tril(before)


class EncoderDecoderCache(KeyValueCache):
    """Of an encoder-decoder: what the decoder has written, and of what the encoder has read, keys and values too."""

    def __init__(self, shape: tuple[int, int, int, int, int], like: Tensor):
        super().__init__(shape, like)
        self.read: list[tuple[Tensor, Tensor]] = []
        """For each of the decoder's layers, keys and values of the encoder's states; empty before it has read."""
        self.hidden: Tensor | None = None
        """What hides the padding among them, as a bias of attention."""

    def select(self, rows: Tensor, same_source: bool = False) -> None:
        """Keep these texts; with `same_source`, each takes the place of one whose source is the same."""
        super().select(rows)
        if not same_source:
            self.read = [(keys[rows], values[rows]) for keys, values in self.read]
            self.hidden = None if self.hidden is None else self.hidden[rows]
