"""Windows of a prepared text as batches: one kind of what a run reads (training/material.py says what it must be)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from wenlu.base.errors import UserError
from wenlu.data.batch import NO_TARGET, Batch
from wenlu.data.corrupt import Words, mask, sentinels, span_counts, span_lengths, take_out
from wenlu.data.keyed import HELD_OUT, keys
from wenlu.data.order import Order
from wenlu.data.shards import Data

if TYPE_CHECKING:
    from jaxtyping import Int64, UInt64

Form = Callable[["Int64[np.ndarray, 'batch length']", "UInt64[np.ndarray, ' batch']"], Batch]
"""What a model reads of stretches of ids, each with the key of its random choices."""


class Windows:
    """Stretches of `length` ids of a text, in `Order`, each made into what a model reads by `form`."""

    def __init__(self, data: Data, order: Order, length: int, form: Form, seed: int):
        self.data, self.order = data, order
        self.tokenizer, self.fingerprint = data.tokenizer, data.fingerprint
        self.size = f"{len(data.train):,} training tokens"
        self.holds_out = data.validation is not None
        self._length, self._form, self._seed = length, form, seed

    def batch(self, samples: Int64[np.ndarray, " batch"], epochs: Int64[np.ndarray, " batch"]) -> Batch:
        """The windows that begin at `samples`, read in the epochs given."""
        return self._form(self.data.train.windows(samples, self._length), keys(self._seed, samples, epochs))

    def held_out(self, limit: int, at_once: int) -> Iterator[Batch]:
        """Whole windows one after another; with a `limit` as many as it has tokens for, evenly from all of them: the
        beginning alone may be easier, or harder, than what follows."""
        store, seq = self.data.validation, self.order.seq
        starts = np.arange(0, max(1, len(store) - self._length + 1), seq, dtype=np.int64)
        if limit:
            count = min(len(starts), 1 + max(0, limit - self._length) // seq)
            starts = starts[(2 * np.arange(count) + 1) * len(starts) // (2 * count)]
        for first in range(0, len(starts), at_once):
            samples = starts[first : first + at_once]
            windows = store.windows(samples, self._length)
            yield self._form(windows, keys(self._seed, samples, np.full_like(samples, HELD_OUT)))


class CausalWindows(Windows):
    """For models that foretell the next token: `ids`, and as `targets` the token after each.

    Held-out batches say besides how many `bytes` of text the targets of each window bring, unless the tokenizer does
    not give back every document: what it drops would flatter it.
    """

    def __init__(self, data: Data, context: int, batch: int, seed: int):
        order = Order(len(data.train), context, batch, seed, data.fingerprint)
        super().__init__(data, order, context + 1, _next, seed)

    def held_out(self, limit: int, at_once: int) -> Iterator[Batch]:
        for batch in super().held_out(limit, at_once):
            if not self.data.description.get("lossy", 0):
                batch["bytes"] = self.tokenizer.byte_counts[batch["targets"]].sum(axis=1)
            yield batch


def _next(ids: Int64[np.ndarray, "batch length"], keys: UInt64[np.ndarray, " batch"]) -> Batch:
    return {"ids": ids[:, :-1], "targets": ids[:, 1:]}


class MaskedWindows(Windows):
    """For BERT: [CLS] text [SEP], of `context` tokens; `ids` with masks, `targets` where one was chosen, else -100."""

    def __init__(self, data: Data, context: int, batch: int, seed: int):
        tokenizer = data.tokenizer
        for role in ("mask", "cls", "sep"):
            if getattr(tokenizer, f"{role}_id") is None:
                raise UserError(
                    f"the tokenizer of {data.folder} has no {role} token, which masked training needs: "
                    "prepare the text with --purpose bert, or by a BERT's tokenizer"
                )
        if context < 8:
            raise UserError(f"model.context ({context}) is too short for [CLS], text and [SEP]: give 8 or more")
        self._words = Words.of(tokenizer)
        order = Order(len(data.train), context - 2, batch, seed, data.fingerprint)
        super().__init__(data, order, context - 2, self._masked, seed)

    def _masked(self, ids: Int64[np.ndarray, "batch length"], keys: UInt64[np.ndarray, " batch"]) -> Batch:
        ids, targets = mask(ids, keys, self._words, self.tokenizer.mask_id)
        ends = (self.tokenizer.cls_id, self.tokenizer.sep_id)
        return {"ids": _between(ids, *ends), "targets": _between(targets, NO_TARGET, NO_TARGET)}


class CorruptedWindows(Windows):
    """For T5: texts of which spans are taken out, as `ids` of at most `context` tokens, and the spans as `targets`."""

    def __init__(self, data: Data, context: int, batch: int, seed: int):
        self._sentinels = sentinels(data.tokenizer)
        if data.tokenizer.pad_id is None:
            raise UserError(f"the tokenizer of {data.folder} has no pad token, with which a T5 begins to write")
        if context < 8:
            raise UserError(f"model.context ({context}) is too short to take spans out: give 8 or more")
        tokens, _ = span_lengths(context)
        if span_counts(tokens)[1] > len(self._sentinels):
            raise UserError(
                f"windows of {context:,} tokens have {span_counts(tokens)[1]} spans to take out, and the tokenizer of "
                f"{data.folder} has {len(self._sentinels)} sentinels (<extra_id_0> and so on): use a shorter "
                "--model.context, or prepare the text with --purpose t5"
            )
        order = Order(len(data.train), tokens, batch, seed, data.fingerprint)
        super().__init__(data, order, tokens, self._corrupted, seed)

    def _corrupted(self, ids: Int64[np.ndarray, "batch length"], keys: UInt64[np.ndarray, " batch"]) -> Batch:
        inputs, targets = take_out(ids, keys, self._sentinels, self.tokenizer.eos_id)
        begun = np.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=self.tokenizer.pad_id)
        return {"ids": inputs, "decoder_ids": begun, "targets": targets}


def _between(ids: np.ndarray, first: int, last: int) -> np.ndarray:
    """Rows with one more value at each end."""
    return np.pad(ids, ((0, 0), (1, 1)), constant_values=((0, 0), (first, last)))
