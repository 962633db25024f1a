"""Which rows at which step: batches of like lengths, or several rows packed into one; functions of (seed, epoch)."""

from __future__ import annotations

import bisect
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from wenlu.base.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Int64

POOL = 64
"""Batches whose rows are sorted by length together: enough to waste little padding, few enough to stay mixed."""
PACKED = 4096
"""Rows that are packed together."""


class RowOrder:
    """Every row once an epoch, in an order of its own for every epoch. A sample's number is its row's.

    The rows of a batch are of like length. An epoch's last batch may be smaller.
    """

    def __init__(self, lengths: Int64[np.ndarray, " rows"], batch: int, seed: int, fingerprint: str):
        if not len(lengths):
            raise UserError("no training rows: nothing can be learned")
        self.samples = len(lengths)
        self.batches = -(-self.samples // batch)
        """Steps in an epoch."""
        self._lengths, self._batch, self._key = lengths, batch, (seed, fingerprint)
        self._epoch = lru_cache(maxsize=2)(self._plan)

    def batch_at(self, step: int) -> Int64[np.ndarray, " batch"]:
        """Numbers of the rows of the global batch of a step."""
        epoch, place = divmod(step, self.batches)
        return self._epoch(epoch)[place]

    def epochs_at(self, step: int) -> Int64[np.ndarray, " batch"]:
        """The epoch in which each of them is read."""
        return np.full(len(self.batch_at(step)), step // self.batches, dtype=np.int64)

    def _plan(self, epoch: int) -> list[np.ndarray]:
        random = generator(*self._key, epoch)
        rows = random.permutation(self.samples)
        sorted_ = []
        for start in range(0, len(rows), POOL * self._batch):
            pool = rows[start : start + POOL * self._batch]
            sorted_.append(pool[np.argsort(self._lengths[pool], kind="stable")])
        rows = np.concatenate(sorted_)
        batches = [rows[start : start + self._batch] for start in range(0, len(rows), self._batch)]
        return [batches[number] for number in random.permutation(len(batches))]


class PackedOrder:
    """Rows packed, several into one of at most `room` tokens. A sample's number is that of a pack in its epoch.

    Every epoch packs anew; best fit, the longest rows first, leaves a few per cent unused (Johnson 1974).
    """

    def __init__(self, lengths: Int64[np.ndarray, " rows"], room: int, batch: int, seed: int, fingerprint: str):
        if not len(lengths):
            raise UserError("no training rows: nothing can be learned")
        assert lengths.max() <= room, "rows are cut to fit"
        self._lengths, self._room, self._batch, self._key = lengths, room, batch, (seed, fingerprint)
        self.packs = lru_cache(maxsize=2)(self._packs)
        self._ends = [0]
        self.samples = len(self.packs(0))

    @property
    def batches(self) -> int:
        """Steps in the first epoch; later ones may differ by a few."""
        return -(-self.samples // self._batch)

    def batch_at(self, step: int) -> Int64[np.ndarray, " batch"]:
        """Numbers of the packs of the global batch of a step, each in its epoch."""
        _, first, last = self._place(step)
        return np.arange(first, last, dtype=np.int64)

    def epochs_at(self, step: int) -> Int64[np.ndarray, " batch"]:
        """The epoch of each of them."""
        epoch, first, last = self._place(step)
        return np.full(last - first, epoch, dtype=np.int64)

    def _place(self, step: int) -> tuple[int, int, int]:
        """(epoch, first pack, one behind the last) of a step."""
        while self._ends[-1] <= step:
            epoch = len(self._ends) - 1
            self._ends.append(self._ends[-1] + -(-len(self.packs(epoch)) // self._batch))
        epoch = bisect.bisect_right(self._ends, step) - 1
        first = (step - self._ends[epoch]) * self._batch
        return epoch, first, min(first + self._batch, len(self.packs(epoch)))

    def _packs(self, epoch: int) -> list[np.ndarray]:
        """The rows of each pack of an epoch."""
        random = generator(*self._key, epoch)
        rows = random.permutation(len(self._lengths))
        packs = []
        for start in range(0, len(rows), PACKED):
            packs += pack(rows[start : start + PACKED], self._lengths, self._room)
        return [packs[number] for number in random.permutation(len(packs))]


def pack(rows: Int64[np.ndarray, " rows"], lengths: np.ndarray, room: int) -> list[np.ndarray]:
    """Rows by pack, none longer than `room`: the longest first, each where the least is left."""
    packs: list[list[int]] = []
    left: list[tuple[int, int]] = []  # (what is left, number of the pack), sorted
    for row in rows[np.argsort(-lengths[rows], kind="stable")].tolist():
        length = int(lengths[row])
        place = bisect.bisect_left(left, (length, -1))
        if place == len(left):
            packs.append([row])
            bisect.insort(left, (room - length, len(packs) - 1))
        else:
            rest, number = left.pop(place)
            packs[number].append(row)
            bisect.insort(left, (rest - length, number))
    return [np.array(members, dtype=np.int64) for members in packs]


def generator(seed: int, fingerprint: str, epoch: int) -> np.random.Generator:
    """Random numbers of one epoch."""
    digest = hashlib.sha256(f"rows {seed} {epoch} {fingerprint}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
