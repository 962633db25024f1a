"""Token-level generation: read the prompt once, then one token at a time with the model's own cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.inference.sample import Strategy
from wenlu.models.config import ROTARY

if TYPE_CHECKING:
    from jaxtyping import Float, Int

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
        ids: Sequence[int] | Sequence[Sequence[int]],
        strategy: Strategy,
        max_tokens: int,
        stop_ids: Collection[int] = (),
        generators: Sequence[torch.Generator] | torch.Generator | None = None,
        *,
        rows: int = 1,
        vocab: int | None = None,
    ):
        """Nothing is computed yet. Raises UserError for a prompt without tokens, or beyond a gpt2's context.

        ids: the prompt of all rows; for t5 also one prompt for each row, of any lengths: its encoder reads them, and
        what the decoder writes begins anew. stop_ids: end tokens; they are not given out. generators: one for each row
        (`sample.row_generators`). vocab: choose among the first so many ids only, where a model has rows that its
        tokenizer does not know.
        """
        config = model.config
        prompts = [ids] if not ids or isinstance(ids[0], int) else list(ids)
        if not all(prompts):
            raise UserError("a model cannot begin from nothing: give it a prompt of at least one token")
        if len(prompts) > 1 and config.family != "t5":
            raise UserError(f"{config.family} continues one prompt at a time: only t5 reads several side by side")
        assert len(prompts) in (1, rows), f"{len(prompts)} prompts for {rows} rows"
        self._begin_id = model.begin_id if config.family == "t5" else None
        if config.family == "gpt2" and len(prompts[0]) > config.context:
            raise UserError(
                f"the prompt has {len(prompts[0])} tokens, but this gpt2 reads at most {config.context}: "
                "shorten the prompt"
            )
        self._model, self._strategy, self._generators, self._vocab = model, strategy, generators, vocab
        self._stop_ids = frozenset(stop_ids)
        # The newest token is chosen but not read: a context of n positions gives n + 1 tokens.
        room = config.context + 1 - len(prompts[0]) if config.family == "gpt2" else max_tokens
        self._limit = min(max_tokens, room)
        self._last: Finish = "context" if room < max_tokens else "length"
        self.finish: list[Finish | None] = [None] * rows
        """Of each row, why it ended, once it has."""
        self._prompts = prompts if len(prompts) == rows else prompts * rows
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
        return config.family in ROTARY and len(self._prompts[0]) + self._made - 1 > config.context

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
        encoded, source, segments = self._begin_id is not None, None, None
        if self._next is None:
            device = next(model.parameters()).device
            if encoded:
                source, segments = padded(self._prompts, self._begin_id, device)
                self._next = torch.full((rows, 1), self._begin_id, device=device)
            else:
                self._next = torch.tensor(self._prompts, device=device)
            self._cache = model.new_cache(rows, self._next.shape[1] + min(self._limit - 1, _ROOM))
        if encoded:
            hidden = model.hidden(source, self._next, segments, cache=self._cache)
        else:
            hidden = model.hidden(self._next, cache=self._cache)
        return model.head(hidden[:, -1])[:, : self._vocab]


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


def generate(
    model: nn.Module,
    ids: Sequence[int],
    strategy: Strategy,
    max_tokens: int,
    stop_ids: Collection[int] = (),
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """The ids that follow `ids`, or t5's answer to them, one by one, up to `max_tokens` or the first of `stop_ids`.

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
