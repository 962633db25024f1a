"""Token-level generation: read the prompt once, then one token at a time with the model's own cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
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


class Reader:
    """A model that reads prompts side by side, then what is chosen after them, with its own cache.

    The logits of a row depend on the other rows only by the rounding of the kernels (within 1e-4 in f32).
    """

    def __init__(self, model: nn.Module, prompts: Sequence[Sequence[int]], max_tokens: int, vocab: int | None = None):
        """Nothing is computed yet. Raises UserError for a prompt without tokens, or beyond a gpt2's context.

        Several prompts are of one length, but for t5, whose encoder reads them: what its decoder writes begins anew.
        vocab: give logits of the first so many ids only, where a model has rows that its tokenizer does not know.
        """
        config = model.config
        if not all(prompts):
            raise UserError("a model cannot begin from nothing: give it a prompt of at least one token")
        if config.family != "t5" and len(set(map(len, prompts))) > 1:
            raise UserError(f"{config.family} continues prompts of one length only: t5 reads others side by side")
        self._begin_id = model.begin_id if config.family == "t5" else None
        longest = len(prompts[0])
        if config.family == "gpt2" and longest > config.context:
            raise UserError(
                f"the prompt has {longest} tokens, but this gpt2 reads at most {config.context}: shorten the prompt"
            )
        self._model, self._prompts, self._vocab = model, prompts, vocab
        # The newest token is chosen but not read: a context of n positions gives n + 1 tokens.
        room = config.context + 1 - longest if config.family == "gpt2" else max_tokens
        self.limit = min(max_tokens, room)
        """How many tokens may be chosen."""
        self.last: Finish = "context" if room < max_tokens else "length"
        """Why no more may be."""

    def begin(self) -> Float[Tensor, "rows vocab"]:
        """Read the prompts: logits of the first token to choose."""
        rows, device = len(self._prompts), next(self._model.parameters()).device
        if self._begin_id is None:
            ids = torch.tensor([list(prompt) for prompt in self._prompts], device=device)
            self._cache = self._model.new_cache(rows, ids.shape[1] + min(self.limit - 1, _ROOM))
            return self._logits(self._model.hidden(ids, cache=self._cache))
        ids, segments = padded(self._prompts, self._begin_id, device)
        begin = torch.full((rows, 1), self._begin_id, device=device)
        self._cache = self._model.new_cache(rows, 1 + min(self.limit - 1, _ROOM))
        return self._logits(self._model.hidden(ids, begin, segments, cache=self._cache))

    def read(self, chosen: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        """Read one more token of each row: logits of the next."""
        source = () if self._begin_id is None else (None,)
        return self._logits(self._model.hidden(*source, chosen[:, None], cache=self._cache))

    def select(self, rows: Int[Tensor, " kept"], same_prompts: bool = False) -> None:
        """Go on with these rows, some of them perhaps several times; `same_prompts`: each in place of one of its own
        prompt."""
        self._cache.select(rows, same_prompts)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._model.head(hidden[:, -1])[:, : self._vocab]


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


class Decoding:
    """Prompts being continued by one or more rows, all in step, each row until it ends by itself.

    The random draws of a row do not depend on the other rows; of its logits, see `Reader`.
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
        """Nothing is computed yet. Raises UserError where `Reader` does.

        ids: the prompt of all rows, or one for each. stop_ids: end tokens; they are not given out. generators: one for
        each row (`sample.row_generators`). vocab: choose among the first so many ids only.
        """
        prompts = [ids] if not ids or isinstance(ids[0], int) else list(ids)
        assert len(prompts) in (1, rows), f"{len(prompts)} prompts for {rows} rows"
        self._prompts = prompts if len(prompts) == rows else prompts * rows
        self._reader = Reader(model, self._prompts, max_tokens, vocab)
        self._model, self._strategy, self._generators = model, strategy, generators
        self._stop_ids = frozenset(stop_ids)
        self.finish: list[Finish | None] = [None if self._reader.limit >= 1 else self._reader.last] * rows
        """Of each row, why it ended, once it has."""
        self._made = 0
        self._next: Tensor | None = None

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
        with evaluating(self._model):
            logits = self._reader.begin() if self._next is None else self._reader.read(self._next)
            self._next = self._strategy.choose(logits, self._generators)
        self._made += 1
        given: list[int | None] = []
        for row, token in enumerate(self._next.tolist()):
            if self.finish[row] is None and token in self._stop_ids:
                self.finish[row] = "eos"
            given.append(None if self.finish[row] else token)
            if self._reader.limit == self._made:
                self.finish[row] = self.finish[row] or self._reader.last
        return given


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
