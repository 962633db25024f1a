"""Keys and values of texts that were read, kept for the next text that begins alike."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

from wenlu.base.errors import UserError
from wenlu.models.cache import KeyValueCache

BLOCK = 16
"""Tokens that are kept, and given up, together."""


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
        self._blocks: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    def find(self, ids: Sequence[int]) -> list[Tensor]:
        """What is kept of the beginning of a prompt, block by block; its last token is left to be read."""
        parts = []
        for end in range(BLOCK, len(ids), BLOCK):
            block = self._blocks.get(tuple(ids[:end]))
            if block is None:
                break
            parts.append(block)
        self._touch(ids, len(parts))
        self.found += BLOCK * len(parts)
        return parts

    def add(self, ids: Sequence[int], cache: KeyValueCache, row: int) -> None:
        """Keep what a row of a cache remembers of its first tokens, `ids`."""
        whole = len(ids) // BLOCK
        for number in range(whole):
            name = tuple(ids[: (number + 1) * BLOCK])
            if name not in self._blocks:
                block = cache.cut(row, number * BLOCK, (number + 1) * BLOCK)
                if block.nbytes > self.room:
                    return
                self._blocks[name] = block
                self.bytes += block.nbytes
        self._touch(ids, whole)
        while self.bytes > self.room:
            _, block = self._blocks.popitem(last=False)
            self.bytes -= block.nbytes

    def _touch(self, ids: Sequence[int], blocks: int) -> None:
        """Used now: the first block last, so that no block outlives the one that it follows."""
        for number in range(blocks, 0, -1):
            self._blocks.move_to_end(tuple(ids[: number * BLOCK]))
