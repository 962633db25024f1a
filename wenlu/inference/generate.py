"""Token-level generation: the ids that follow a prompt, one by one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import nn

from wenlu.inference.batch import Engine
from wenlu.inference.sample import Strategy
from wenlu.inference.text import Request


def generate(
    model: nn.Module,
    ids: Sequence[int],
    strategy: Strategy,
    max_tokens: int,
    stop_ids: Collection[int] = (),
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """The ids that follow `ids`, or t5's answer to them, one by one, up to `max_tokens` or the first of `stop_ids`.

    Also ends where a gpt2 has no more positions; use `batch.Engine` to know why it ended. Raises UserError at once for
    a prompt that the model cannot read, and once no token can be chosen.
    """
    engine = Engine(model)
    text = engine.add(Request(tuple(ids), strategy, max_tokens, frozenset(stop_ids), generator))

    def steps() -> Iterator[int]:
        given = 0
        while text.finish is None:
            engine.step()
            yield from text.ids[given:]
            given = len(text.ids)
        if text.error is not None:
            raise text.error

    return steps()
