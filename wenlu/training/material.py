"""What a run reads: samples known by number, their order, batches of them, and held-out batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from wenlu.base.errors import UserError
from wenlu.data.batch import Batch
from wenlu.data.shards import Data
from wenlu.data.windows import CausalWindows, CorruptedWindows, MaskedWindows, Windows
from wenlu.tokenization.tokenizer import Tokenizer
from wenlu.training.objectives import objective_of
from wenlu.training.recipe import Recipe

if TYPE_CHECKING:
    from jaxtyping import Int64


@runtime_checkable
class SampleOrder(Protocol):
    """Which samples at which step; pure functions of seed, step and fingerprint."""

    samples: int
    """In an epoch."""

    def batch_at(self, step: int) -> Int64[np.ndarray, " batch"]:
        """Numbers of the samples of the global batch of a step."""

    def epochs_at(self, step: int) -> Int64[np.ndarray, " batch"]:
        """The epoch in which each of them is read."""


@runtime_checkable
class Material(Protocol):
    """All that the loop asks of training data. Windows of text are one kind, rows of examples another.

    A batch is a dictionary of arrays, `ids` [batch, seq] among them, by the names that the objective reads. Padding has
    the segment -1 in `segments` (`decoder_segments`) and the target -100.
    """

    tokenizer: Tokenizer
    fingerprint: str
    """Changes with the data; another one than that of the run is refused on resume."""
    size: str
    """In words, such as "12,000 training tokens"."""
    holds_out: bool
    order: SampleOrder

    def batch(self, samples: Int64[np.ndarray, " batch"], epochs: Int64[np.ndarray, " batch"]) -> Batch:
        """These samples; what is random in them is a function of (seed, sample, epoch) alone."""

    def held_out(self, limit: int, at_once: int) -> Iterator[Batch]:
        """Held-out samples, the same every time: about `limit` tokens of them (0 = all), `at_once` in a batch."""


TEXT: dict[str, Callable[[Data, int, int, int], Windows]] = {
    "next token": CausalWindows,
    "masked tokens": MaskedWindows,
    "text to text": CorruptedWindows,
}
"""Name of an objective → windows of a text for it, of (data, context, batch, seed)."""


def text_material(data: Data, recipe: Recipe) -> Material:
    """The windows of a prepared text that a model of the recipe's family learns from."""
    head = recipe.model.head
    if head != "tokens":
        raise UserError(f"the head {head!r} learns from examples, not from text alone: leave model.head at tokens")
    windows = TEXT[objective_of(recipe.model).name]
    return windows(data, recipe.model.context, recipe.training.batch, recipe.training.seed)


def tokens_in(batch: Batch) -> int:
    """How many tokens of a batch are read, padding not counted."""
    pairs = [(batch.get(of + "ids"), batch.get(of + "segments")) for of in ("", "decoder_")]
    return sum(
        ids.size if segments is None else int((segments >= 0).sum()) for ids, segments in pairs if ids is not None
    )
