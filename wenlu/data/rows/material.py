"""Rows as what a run reads (training/material.py says what that must be)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from wenlu.base.log import counted
from wenlu.data.batch import Batch
from wenlu.data.rows import collate
from wenlu.data.rows.order import PackedOrder, RowOrder, generator
from wenlu.data.rows.store import Rows, RowStore
from wenlu.tokenization.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Int64


class RowMaterial:
    """The rows of a folder in batches; conversations are packed, rows of other tasks put with others of like length."""

    def __init__(self, rows: Rows, tokenizer: Tokenizer, batch: int, seed: int, start: str = "", types: int = 2):
        """`start`: what the model begins from, part of the fingerprint; `types`: how many kinds of token it knows."""
        self.rows, self.tokenizer = rows, tokenizer
        self.fingerprint = f"{rows.fingerprint}{start}"
        self.size = counted(len(rows.train), "row")
        self.holds_out = rows.validation is not None
        self.form: str = rows.description["form"]
        self._pad = next((id for id in (tokenizer.pad_id, tokenizer.eos_id) if id is not None), 0)
        self._types, self._batch, self._seed = types, batch, seed

    @cached_property
    def order(self) -> PackedOrder | RowOrder:
        """Which rows, or packs of them, are read at which step."""
        lengths, rows = self._lengths(self.rows.train), self.rows
        if self.form == "chat":
            return PackedOrder(lengths, rows.description["context"], self._batch, self._seed, rows.fingerprint)
        return RowOrder(lengths, self._batch, self._seed, rows.fingerprint)

    def batch(self, samples: Int64[np.ndarray, " batch"], epochs: Int64[np.ndarray, " batch"]) -> Batch:
        """The rows (of conversations: the packs of their epoch) with these numbers."""
        store = self.rows.train
        if isinstance(self.order, RowOrder):
            return self._of(store, samples)
        packs = [self.order.packs(int(epoch))[int(sample)] for sample, epoch in zip(samples, epochs, strict=True)]
        return collate.packed([[store[int(number)] for number in pack] for pack in packs], self._pad)

    def held_out(self, limit: int, at_once: int) -> Iterator[Batch]:
        """Held-out rows one by one, the same every time, with their numbers as `row` [batch]."""
        store = self.rows.validation
        lengths = self._lengths(store)
        numbers = generator(0, "held out", 0).permutation(len(store))
        if limit:
            numbers = numbers[: max(1, int(np.searchsorted(np.cumsum(lengths[numbers]), limit, side="right")))]
        numbers = numbers[np.argsort(lengths[numbers], kind="stable")]
        for first in range(0, len(numbers), at_once):
            part = numbers[first : first + at_once]
            yield {**self._of(store, part), "row": part.copy()}

    def _of(self, store: RowStore, numbers: np.ndarray) -> Batch:
        rows = [store[int(number)] for number in numbers]
        if self.form == "chat":
            return collate.packed([[row] for row in rows], self._pad)
        if self.form == "pairs":
            return collate.text_to_text(rows, self._pad, self._pad)
        batch = {"classify": collate.classified, "tag": collate.tagged, "span": collate.spans}[self.form](
            rows, self._pad
        )
        if "types" in batch and self._types < 2:
            batch["types"] = np.zeros_like(batch["types"])
        return batch

    def _lengths(self, store: RowStore) -> np.ndarray:
        lengths = store.lengths("ids")
        if self.form == "chat":
            return lengths - 1
        return lengths + store.lengths("targets") if self.form == "pairs" else lengths
