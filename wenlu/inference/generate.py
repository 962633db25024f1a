"""Token-level generation: read the prompt once, then one token at a time with the model's own cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from wenlu.base.errors import UserError
from wenlu.inference.sample import Strategy

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Finish = Literal["stop", "length", "eos", "context"]
"""Why a text ended: a stop text, `max_tokens`, an end token, or a gpt2 that has no more positions."""

_ROOM = 1024
"""New tokens that a cache has room for at first; it grows for more."""


class Decoding:
    """One prompt being continued by one or more rows, all in step, each row until it ends by itself.

    The logits of a row depend on the other rows only by the rounding of the kernels (within 1e-4 in f32), its random
    draws not at all.
    """

    def __init__(
        self,
        model: nn.Module,
        ids: Sequence[int],
        strategy: Strategy,
        max_tokens: int,
        stop_ids: Collection[int] = (),
        generators: Sequence[torch.Generator] | torch.Generator | None = None,
        *,
        rows: int = 1,
        vocab: int | None = None,
    ):
        """Nothing is computed yet. Raises UserError for a prompt without tokens, or beyond a gpt2's context.

        stop_ids: end tokens; they are not given out. generators: one for each row (`sample.row_generators`).
        vocab: choose among the first so many ids only, where a model has rows that its tokenizer does not know.
        """
        config = model.config
        if not ids:
            raise UserError("a model cannot begin from nothing: give it a prompt of at least one token")
        if config.family == "gpt2" and len(ids) > config.context:
            raise UserError(
                f"the prompt has {len(ids)} tokens, but this gpt2 reads at most {config.context}: shorten the prompt"
            )
        self._model, self._strategy, self._generators, self._vocab = model, strategy, generators, vocab
        self._stop_ids = frozenset(stop_ids)
        # The newest token is chosen but not read: a context of n positions gives n + 1 tokens.
        room = config.context + 1 - len(ids) if config.family == "gpt2" else max_tokens
        self._limit = min(max_tokens, room)
        self._last: Finish = "context" if room < max_tokens else "length"
        self.finish: list[Finish | None] = [None] * rows
        """Of each row, why it ended, once it has."""
        self._prompt = ids
        self._made = 0
        self._next: Tensor | None = None
        if self._limit < 1:
            self.finish = [self._last] * rows

    @property
    def done(self) -> bool:
        """Whether every row has ended."""
        return all(self.finish)

    @property
    def beyond_context(self) -> bool:
        """Whether a rotary model has been led past the longest sequence that it was trained on."""
        config = self._model.config
        return config.family in ("llama", "qwen3") and len(self._prompt) + self._made - 1 > config.context

    def end(self, row: int, reason: Finish) -> None:
        """End a row from outside; the reason replaces one that the row may have ended with by itself."""
        self.finish[row] = reason

    def step(self) -> list[int | None]:
        """The next id of each row; None for a row that has ended, or ends with this step at an end token."""
        assert not self.done, "there is no row left to continue"
        # The model is put to evaluation, and inference mode entered, for this step alone: a caller may leave a
        # half-read iterator behind and go on training.
        training = self._model.training
        if training:
            self._model.eval()
        try:
            with torch.inference_mode():
                chosen = self._strategy.choose(self._logits(), self._generators)
        finally:
            if training:
                self._model.train()
        self._next = chosen[:, None]
        self._made += 1
        given: list[int | None] = []
        for row, token in enumerate(chosen.tolist()):
            if self.finish[row] is None and token in self._stop_ids:
                self.finish[row] = "eos"
            given.append(None if self.finish[row] else token)
            if self._limit == self._made:
                self.finish[row] = self.finish[row] or self._last
        return given

    def _logits(self) -> Float[Tensor, "rows vocab"]:
        """Logits after everything so far, having read what the cache does not hold yet."""
        model, rows = self._model, len(self.finish)
        if self._next is None:
            device = next(model.parameters()).device
            self._next = torch.tensor([list(self._prompt)], device=device).expand(rows, -1)
            self._cache = model.new_cache(rows, len(self._prompt) + min(self._limit - 1, _ROOM))
        return model.head(model.hidden(self._next, cache=self._cache)[:, -1])[:, : self._vocab]


def generate(
    model: nn.Module,
    ids: Sequence[int],
    strategy: Strategy,
    max_tokens: int,
    stop_ids: Collection[int] = (),
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """The ids that follow `ids`, one by one as they are made, up to `max_tokens` or the first of `stop_ids`.

    Also ends where a gpt2 has no more positions; use `Decoding` to know why it ended. Raises UserError at once for a
    prompt that the model cannot read.
    """
    decoding = Decoding(model, ids, strategy, max_tokens, stop_ids, generator)

    def steps() -> Iterator[int]:
        while not decoding.done:
            (token,) = decoding.step()
            if token is not None:
                yield token

    return steps()
