"""A model that reads prompts side by side, then what is chosen after them, with its own cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.models.cache import KeyValueCache
from wenlu.models.config import ROTARY, ModelConfig

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Finish = Literal["stop", "length", "eos", "context", "cancelled", "error"]
"""Why a text ended: a stop text (or a constraint that is met), `max_tokens`, an end token, a gpt2 that has no more
positions, from outside, or because no token could be chosen."""

_ROOM = 256
"""New tokens that a cache has room for at first; it grows for more."""
_AT_ONCE = 1 << 20
"""Tokens of prompts that a processor takes through the layers together, times the width of the feed-forward layer; but
a prompt whole."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model as it is evaluated: no dropout, no gradients. Afterwards it is as before: a caller may go on training."""
    training = model.training
    if training:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if training:
            model.train()


def check_prompt(config: ModelConfig, ids: Sequence[int]) -> None:
    """Raises UserError for a prompt that a model cannot read: none at all, unknown ids, or beyond a gpt2's context."""
    if not ids:
        raise UserError("a model cannot begin from nothing: give it a prompt of at least one token")
    if min(ids) < 0 or max(ids) >= config.vocab:
        wrong = next(id for id in ids if not 0 <= id < config.vocab)
        raise UserError(f"the prompt holds the id {wrong}, but this model knows 0 to {config.vocab - 1} only")
    if config.family == "gpt2" and len(ids) > config.context:
        raise UserError(
            f"the prompt has {len(ids)} tokens, but this gpt2 reads at most {config.context}: shorten the prompt"
        )


def limit_of(config: ModelConfig, prompt: int, max_tokens: int) -> tuple[int, Finish]:
    """How many tokens may be chosen after a prompt of so many, and why no more may be."""
    # The newest token is chosen but not read: a context of n positions gives n + 1 tokens.
    room = config.context + 1 - prompt if config.family == "gpt2" else max_tokens
    return min(max_tokens, room), "context" if room < max_tokens else "length"


def most_tokens(config: ModelConfig, *, written: bool) -> int | None:
    """Most tokens of a prompt with its answer, which is written or scored: None where there is no end (an LSTM, a t5).

    Of a scored text the last token is asked for, but not read; a bert reads two more (cls, sep). What is longer, a
    rotary model alone reads all the same, beyond what it was trained on.
    """
    if config.family == "bert":
        return config.context - 2
    if config.family not in ("gpt2", *ROTARY):
        return None
    return config.context if written else config.context + 1


class Reader:
    """Rows of texts that one model goes on reading together.

    The logits of a row depend on the other rows only by the rounding of the kernels (within 1e-4 in f32).
    """

    def __init__(self, model: nn.Module, vocab: int | None = None):
        """Nothing is computed yet. vocab: give logits of the first so many ids only, where a model has rows that its
        tokenizer does not know."""
        self._model, self._vocab = model, vocab
        self._t5 = model.config.family == "t5"
        self._device = next(model.parameters()).device

    def begin(self, prompts: Sequence[Sequence[int]], room: int) -> Float[Tensor, "rows vocab"]:
        """Read the prompts: logits of the first token to choose after each (`open`, then all of `read_on`)."""
        self.open(prompts, room)
        logits = self.read_on(self.left)
        assert logits is not None
        return logits

    def open(self, prompts: Sequence[Sequence[int]], room: int, known: Sequence[Tensor] = ()) -> None:
        """Prompts to be read; nothing is yet.

        Several prompts are of one length, but for t5, whose encoder reads them: what its decoder writes begins anew.
        room: for how many more tokens there is room at first. known: keys and values (`KeyValueCache.cut`) of the
        first tokens of a prompt alone, which are then not read again.
        """
        rows, room = len(prompts), min(room, _ROOM)
        if self._t5:
            self._prompt, self._segments = padded(prompts, self._model.begin_id, self._device)
            self.cache = self._model.new_cache(rows, 1 + room)
        else:
            assert len(set(map(len, prompts))) == 1, "only t5 begins with prompts of several lengths"
            self.cache = self._model.new_cache(rows, len(prompts[0]) + room)
            self._prompt = torch.tensor([list(prompt) for prompt in prompts], device=self._device)
        self._at = 0
        if known:
            self.cache.begin_with(known)
            self._at = self.cache.length

    @property
    def left(self) -> int:
        """Tokens of each prompt that are still to be read."""
        return self._prompt.shape[1] - self._at

    def read_on(self, most: int) -> Float[Tensor, "rows vocab"] | None:
        """Read at most so many tokens more of each prompt (t5's encoder, which looks both ways: all of them): logits of
        the first token to choose after each once they are read, None before."""
        if self._t5:
            begin = torch.full((len(self._prompt), 1), self._model.begin_id, device=self._device)
            states = self._model.hidden(self._prompt, begin, self._segments, cache=self.cache)
            self._at = self._prompt.shape[1]
            last = states[:, -1]
        else:
            last = self._last_states(self._prompt[:, self._at : self._at + most])
            self._at = min(self._at + most, self._prompt.shape[1])
        return None if self.left else self._logits(last)

    def _last_states(self, ids: Int[Tensor, "rows new"]) -> Float[Tensor, "rows dim"]:
        """The last states after more tokens of the prompts, of a few rows at a time where there are many tokens: on a
        processor what lies between layers would leave its caches otherwise, and memory be given back and taken anew."""
        rows, new = ids.shape
        at_once = max(1, _AT_ONCE // (self._model.config.ffn or 1) // new)
        if at_once >= rows or type(self.cache) is not KeyValueCache or self._device.type != "cpu":
            return self._model.hidden(ids, cache=self.cache)[:, -1]
        last = []
        for first in range(0, rows, at_once):
            end = min(first + at_once, rows)
            last.append(self._model.hidden(ids[first:end], cache=self.cache.part(first, end, new))[:, -1])
        self.cache.advance(new)
        return torch.cat(last)

    def read(self, ids: Int[Tensor, "rows new"]) -> Float[Tensor, "rows new vocab"]:
        """Read more tokens of each row: logits of what follows each."""
        source = (None,) if self._t5 else ()
        return self._logits(self._model.hidden(*source, ids, cache=self.cache))

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._model.head(hidden)[..., : self._vocab]


def padded(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Int[Tensor, "rows longest"], Int[Tensor, "rows longest"] | None]:
    """Prompts of several lengths as one tensor, and segments that tell the padding (-1); None where there is none."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[*prompt, *[pad_id] * (longest - len(prompt))] for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    if lengths.min() == longest:
        return ids, None
    return ids, -(torch.arange(longest, device=device) >= lengths[:, None]).long()
