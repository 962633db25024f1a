"""Keys and values of texts that were read, kept for the next text that begins alike."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from wenlu.base.errors import UserError
from wenlu.models.cache import KeyValueCache

BLOCK = 16
"""Tokens that are kept, and given up, together."""
ROOM = 1 << 28
"""Bytes for what prompts begin with alike, where many are read one after another."""

Name = tuple[int, tuple[int, ...]]
"""Of a block: the number of the one that it follows (0: none), and its own tokens."""


class Block(NamedTuple):
    """What is kept of some tokens after all those before them."""

    number: int
    """From 1; never given again, so that nothing is found after a block that is gone."""
    kept: Tensor


class PrefixCache:
    """A tree of blocks of tokens, each with its keys and values; what two texts begin with is kept once.

    No more than `room` bytes are held: the block that was not used for longest goes first, and those that follow it in
    a text before it.
    """

    def __init__(self, room: int):
        if room < 0:
            raise UserError(f"the room of a prefix cache must be 0 bytes (none) or more, not {room}")
        self.room, self.bytes = room, 0
        self.found = 0
        """Tokens that did not have to be read again, so far."""
        self._blocks: OrderedDict[Name, Block] = OrderedDict()
        self._numbers = 0

    def find(self, ids: Sequence[int]) -> list[Tensor]:
        """What is kept of the beginning of a prompt, block by block; its last token is left to be read."""
        path = self._path(ids[: len(ids) - 1])
        self._touch(path)
        self.found += BLOCK * len(path)
        return [self._blocks[name].kept for name in path]

    def kept(self, ids: Sequence[int]) -> int:
        """How many tokens `find` would find."""
        return BLOCK * len(self._path(ids[: len(ids) - 1]))

    def add(self, ids: Sequence[int], cache: KeyValueCache, row: int) -> None:
        """Keep what a row of a cache remembers of its first tokens, `ids`, as far as there is room."""
        path, size = self._path(ids), BLOCK * cache.token_bytes
        self._touch(path)
        before = self._blocks[path[-1]].number if path else 0
        for start in range(BLOCK * len(path), len(ids) - BLOCK + 1, BLOCK):
            if not self._make_room(size, len(path)):
                break
            self._numbers += 1
            path.append((before, tuple(ids[start : start + BLOCK])))
            self._blocks[path[-1]] = Block(self._numbers, cache.cut(row, start, start + BLOCK))
            self.bytes, before = self.bytes + size, self._numbers
        self._touch(path)

    def clear(self) -> None:
        """Keep nothing of what was read so far."""
        self._blocks.clear()
        self.bytes = 0

    def _path(self, ids: Sequence[int]) -> list[Name]:
        """The names of the blocks that are kept of these tokens, from the first on."""
        path, before = [], 0
        for start in range(0, len(ids) - BLOCK + 1, BLOCK):
            name = (before, tuple(ids[start : start + BLOCK]))
            if name not in self._blocks:
                break
            path.append(name)
            before = self._blocks[name].number
        return path

    def _make_room(self, size: int, newest: int) -> bool:
        """Give up what was not used for longest, but not the newest blocks; whether there is room for `size` bytes."""
        while self.bytes + size > self.room and len(self._blocks) > newest:
            _, block = self._blocks.popitem(last=False)
            self.bytes -= block.kept.nbytes
        return self.bytes + size <= self.room

    def _touch(self, path: Sequence[Name]) -> None:
        """Used now: the first block last, so that no block outlives the one that it follows."""
        for name in reversed(path):
            self._blocks.move_to_end(name)
