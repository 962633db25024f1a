"""What a model remembers of the tokens it has read: keys and values, or the LSTM's state.

A cache is of several texts side by side, its rows; in one of keys and values they may be of different lengths. Rows
join (`join`), leave or change places (`keep`, `select`), and forget their ends (`crop`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

HIDDEN = -1e9
"""Added to the weight of what a token may not see. It is finite, so that one that may see nothing has no NaN."""


class KeyValueCache:
    """Keys and values of every layer, [layers, 2, rows, kv_heads, room, head_dim], each row from the left; rows and
    room double when used up."""

    def __init__(self, shape: tuple[int, int, int, int, int], like: Tensor):
        layers, rows, heads, room, dim = shape
        self._lengths = [0] * rows
        self._store = like.new_zeros(layers, 2, rows, heads, max(1, room), dim)
        self._places: Tensor | None = None
        self._branches: Branches | None = None
        self._counts: Tensor | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens remembered of each row."""
        return tuple(self._lengths)

    @property
    def length(self) -> int:
        """Tokens remembered of the longest row."""
        return max(self._lengths, default=0)

    @property
    def even(self) -> bool:
        """Whether all rows are of one length."""
        return len(set(self._lengths)) <= 1

    @property
    def bytes(self) -> int:
        """Memory held."""
        return self._store.nbytes

    @property
    def token_bytes(self) -> int:
        """Memory of one token of a row."""
        return self._store[:, :, 0, :, 0].nbytes

    @property
    def counts(self) -> Int[Tensor, " rows"]:
        """`lengths` as a tensor."""
        if self._counts is None:
            self._counts = torch.tensor(self._lengths, device=self._store.device)
        return self._counts

    def in_order(self, positions: slice | Tensor, new: int) -> bool:
        """Whether these are the positions that `places` gave: new tokens, one after another, each of which sees those
        before it in its row; not those of a tree."""
        if self._branches is not None:
            return False
        if self.even:
            return positions == slice(self.length, self.length + new) if isinstance(positions, slice) else False
        return positions is self._places

    def places(self, new: int) -> slice | Int[Tensor, "rows new"]:
        """Where the next `new` tokens of each row stand: a slice where that is the same for all."""
        if self._branches is not None:
            return self._branches.places[None]
        if self.even:
            return slice(self.length, self.length + new)
        if self._places is None or self._places.shape[1] != new:
            self._places = self.counts[:, None] + torch.arange(new, device=self._store.device)
        return self._places

    def reach(self, new: int) -> int:
        """The furthest place of the next `new` tokens, and one."""
        return self.length + new if self._branches is None else self._branches.reach

    def sees(
        self, new: int, window: int = 0
    ) -> Bool[Tensor, "*rows new whole"] | Float[Tensor, "1 1 new whole"] | None:
        """True where one of `new` tokens may look: at itself, what stands before it in its row and, with a window, no
        further back; None where that is everything, or for new tokens alone what attention does by itself. Of a tree it
        is a bias: `attend` would make one of it in every layer."""
        whole, device = self.length + new, self._store.device
        if self._branches is not None:
            return self._branches.bias(window).to(self._store.dtype)
        if self.even:
            if window and whole > window:
                return causal_mask(new, self.length, device).triu(self.length - window + 1)
            return causal_mask(new, self.length, device) if self.length and new > 1 else None
        at, columns = self.places(new)[:, :, None], torch.arange(whole, device=device)
        seen = columns <= at
        return (seen & (columns > at - window) if window else seen)[:, None]

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add what a layer computed for new tokens, [rows, kv_heads, new, head_dim]; returns those of all tokens, of
        shorter rows with anything after their own."""
        new, rows = keys.shape[2], len(self._lengths)
        end = self.length + new
        self._make_room(rows, end)
        kept = self._store[layer, :, :rows, :, :end]
        if self.even:
            kept[0, :, :, self.length :], kept[1, :, :, self.length :] = keys, values
        else:
            row, places = torch.arange(rows, device=keys.device)[:, None], self.places(new)
            kept[0][row, :, places], kept[1][row, :, places] = keys.transpose(1, 2), values.transpose(1, 2)
        return kept[0], kept[1]

    def room_for(self, new: int) -> Float[Tensor, "layers 2 whole_rows kv_heads room head_dim"]:
        """All that is kept, with room for so many new tokens of each row, for one who writes into it himself."""
        self._make_room(len(self._lengths), self.length + new)
        return self._store

    def part(self, first: int, end: int, new: int) -> KeyValueCache:
        """These rows, in the same memory, for so many new tokens of each; once all rows have theirs, `advance`."""
        assert type(self) is KeyValueCache, "what an encoder has read belongs to all rows"
        self._make_room(len(self._lengths), self.length + new)
        part = copy.copy(self)
        part._store = self._store[:, :, first:end]
        part._set(self._lengths[first:end])
        return part

    def advance(self, tokens: int) -> None:
        """All layers have added their keys and values for `tokens` more tokens of each row."""
        self._set([length + tokens for length in self._lengths])

    def crop(self, lengths: Sequence[int]) -> None:
        """Forget what stands beyond these lengths, one for each row."""
        assert all(new <= old for new, old in zip(lengths, self._lengths, strict=True)), "a cache cannot be made longer"
        self._set(list(lengths))

    def wipe(self, row: int) -> None:
        """Leave nothing beyond a row's length: what is not a number there would come through every mask."""
        self._store[:, :, row, :, self._lengths[row] :] = 0

    def select(self, rows: Tensor, same_source: bool = False) -> None:
        """Keep these rows, [kept], some of them perhaps several times."""
        kept = self._store[..., : self.length, :].index_select(2, rows)
        if len(rows) > self._store.shape[2]:
            shape = self._store.shape
            self._store = self._store.new_zeros(*shape[:2], len(rows), *shape[3:])
        self._store[:, :, : len(rows), :, : self.length] = kept
        self._set([self._lengths[row] for row in rows.tolist()])

    @contextmanager
    def branching(self, parents: Int[np.ndarray, " new"]) -> Iterator[None]:
        """Within this context the next tokens of the only row are a tree, each of which follows its parent.

        A parent is what is remembered, or a new token before it, by its number among all of these; -1: it is the first
        of all. `keep_path` must come after.
        """
        assert len(self._lengths) == 1, "a tree is read in a row of its own"
        self._branches = Branches.of(parents, self.length, self._store.device)
        try:
            yield
        finally:
            self._branches = None

    def keep_path(self, columns: Int[np.ndarray, " kept"]) -> None:
        """Remember of the only row just these tokens, one after the other, by their numbers in rising order."""
        (same,) = np.nonzero(columns != np.arange(len(columns)))
        first = int(same[0]) if len(same) else len(columns)
        if first < len(columns):
            moved = torch.from_numpy(columns[first:]).to(self._store.device)
            self._store[..., first : len(columns), :] = self._store.index_select(4, moved)
        self._set([len(columns)])

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows in this order; none comes to stand behind where it stood (`gap_filled` gives such orders)."""
        for place, row in enumerate(rows):
            if place != row:
                length = self._lengths[row]
                self._store[:, :, place, :, :length] = self._store[:, :, row, :, :length]
        self._set([self._lengths[row] for row in rows])

    def join(self, other: KeyValueCache) -> None:
        """Add another cache's rows after these."""
        mine, theirs = len(self._lengths), len(other._lengths)
        self._make_room(mine + theirs, other.length)
        self._store[:, :, mine : mine + theirs, :, : other.length] = other._store[:, :, :theirs, :, : other.length]
        self._set([*self._lengths, *other._lengths])

    def cut(self, row: int, start: int, end: int) -> Float[Tensor, "layers 2 kv_heads tokens head_dim"]:
        """A copy of what is remembered of some tokens of a row."""
        return self._store[:, :, row, :, start:end].clone()

    def begin_with(self, parts: Sequence[Float[Tensor, "layers 2 kv_heads tokens head_dim"]]) -> None:
        """Remember, in the only row of an empty cache, what was cut from others."""
        assert self._lengths == [0], "only one row that has read nothing can begin with what others have read"
        end = sum(part.shape[3] for part in parts)
        self._make_room(1, end)
        self._store[:, :, 0, :, :end] = torch.cat(list(parts), dim=3)
        self._set([end])

    def _make_room(self, rows: int, length: int) -> None:
        shape = self._store.shape
        if rows <= shape[2] and length <= shape[4]:
            return
        more_rows = shape[2] if rows <= shape[2] else max(rows, 2 * shape[2])
        room = shape[4] if length <= shape[4] else max(length, 2 * shape[4])
        larger = self._store.new_zeros(*shape[:2], more_rows, shape[3], room, shape[5])
        larger[:, :, : shape[2], :, : self.length] = self._store[..., : self.length, :]
        self._store = larger

    def _set(self, lengths: list[int]) -> None:
        self._lengths, self._places, self._counts = lengths, None, None


@dataclass(frozen=True)
class Branches:
    """Which of a tree's new tokens see which, and where they stand."""

    places: Int[Tensor, " new"]
    """How many tokens stand before each on its way from the root."""
    ancestors: Bool[Tensor, "new whole"]
    """True where a new token may look: at itself and at all on its way from the root."""
    of_columns: Int[Tensor, " whole"]
    """Places of what is remembered and of the new tokens."""
    reach: int

    @classmethod
    def of(cls, parents: Int[np.ndarray, " new"], before: int, device: torch.device) -> Branches:
        """Of new tokens that follow `parents`, after a path of `before` tokens."""
        new = len(parents)
        seen, columns = np.zeros((new, before + new), bool), np.arange(before + new)
        for number, parent in enumerate(parents):
            if parent >= before:
                seen[number] = seen[parent - before]
            else:
                seen[number, : parent + 1] = True
            seen[number, before + number] = True
            columns[before + number] = columns[parent] + 1 if parent >= 0 else 0
        whole, ancestors = torch.from_numpy(columns).to(device), torch.from_numpy(seen).to(device)
        return cls(whole[before:], ancestors, whole, int(columns[before:].max()) + 1)

    def bias(self, window: int) -> Float[Tensor, "1 1 new whole"]:
        """The same as a bias of attention, 0 or `HIDDEN`; with a window, no further back."""
        near = self.of_columns > self.places[:, None] - window if window else True
        return (self.ancestors & near).float().sub_(1).mul_(-HIDDEN)[None, None]


class EncoderDecoderCache(KeyValueCache):
    """Of an encoder-decoder: what the decoder has written, and of what the encoder has read, keys and values too."""

    def __init__(self, shape: tuple[int, int, int, int, int], like: Tensor):
        super().__init__(shape, like)
        self.read: list[tuple[Tensor, Tensor]] = []
        """For each of the decoder's layers, keys and values of the encoder's states; empty before it has read."""
        self.hidden: Tensor | None = None
        """What hides the padding among them, as a bias of attention, [rows, 1, 1, source]."""

    @property
    def bytes(self) -> int:
        return super().bytes + sum(keys.nbytes + values.nbytes for keys, values in self.read)

    def select(self, rows: Tensor, same_source: bool = False) -> None:
        """Keep these rows; with `same_source`, each takes the place of one whose source is the same."""
        super().select(rows)
        if not same_source:
            self.read = [(keys[rows], values[rows]) for keys, values in self.read]
            self.hidden = None if self.hidden is None else self.hidden[rows]

    def keep(self, rows: Sequence[int]) -> None:
        super().keep(rows)
        kept = torch.tensor(list(rows), dtype=torch.long, device=self._store.device)
        self.read = [(keys[kept], values[kept]) for keys, values in self.read]
        self.hidden = None if self.hidden is None else self.hidden[kept]

    def join(self, other: KeyValueCache) -> None:
        assert isinstance(other, EncoderDecoderCache)
        super().join(other)
        longest = max(self.read[0][0].shape[2], other.read[0][0].shape[2])
        hidden = torch.cat((self._hidden(longest), other._hidden(longest)))
        pairs = zip(self._padded(longest), other._padded(longest), strict=True)
        self.read = [(torch.cat((a[0], b[0])), torch.cat((a[1], b[1]))) for a, b in pairs]
        self.hidden = hidden if bool((hidden < 0).any()) else None

    def _padded(self, longest: int) -> list[tuple[Tensor, Tensor]]:
        more = longest - self.read[0][0].shape[2]
        return [(F.pad(keys, (0, 0, 0, more)), F.pad(values, (0, 0, 0, more))) for keys, values in self.read]

    def _hidden(self, longest: int) -> Tensor:
        keys = self.read[0][0]
        bias = keys.new_zeros(keys.shape[0], 1, 1, keys.shape[2]) if self.hidden is None else self.hidden
        return F.pad(bias, (0, longest - keys.shape[2]), value=HIDDEN)


@dataclass
class LSTMState:
    """Hidden state and cell of every layer after `length` tokens; empty lists stand for zeros."""

    hidden: list[Float[Tensor, "rows dim"]] = field(default_factory=list)
    cell: list[Float[Tensor, "rows dim"]] = field(default_factory=list)
    length: int = 0

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(state.nbytes for state in (*self.hidden, *self.cell))

    def select(self, rows: Tensor, same_source: bool = False) -> None:
        """Keep these rows, [kept], some of them perhaps several times."""
        self.hidden, self.cell = ([state[rows] for state in states] for states in (self.hidden, self.cell))

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows in this order."""
        self.select(torch.tensor(list(rows), dtype=torch.long, device=self.hidden[0].device))

    def join(self, other: LSTMState) -> None:
        """Add another state's rows after these."""
        self.hidden = [torch.cat(pair) for pair in zip(self.hidden, other.hidden, strict=True)]
        self.cell = [torch.cat(pair) for pair in zip(self.cell, other.cell, strict=True)]


Cache = KeyValueCache | LSTMState


def gap_filled(count: int, leaving: Sequence[int]) -> list[int]:
    """An order of what stays of `count` rows, in which only as many move as leave: the last ones fill the gaps."""
    gone = set(leaving)
    order = [row for row in range(count) if row not in gone]
    stay = len(order)
    movers = [row for row in order if row >= stay]
    return [movers.pop() if place in gone else place for place in range(stay)]


def causal_mask(new: int, before: int, device: torch.device) -> Bool[Tensor, "new whole"]:
    """[new, before + new], true where a new token may look: at itself and all tokens before it."""
    return torch.ones(new, before + new, dtype=torch.bool, device=device).tril(before)
