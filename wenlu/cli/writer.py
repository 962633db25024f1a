"""What the commands that write text have in common: their flags, and what guesses for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import tyro

from wenlu.base.errors import UserError
from wenlu.cli.loading import check_format, loaded
from wenlu.inference.draws import Draws

if TYPE_CHECKING:
    from torch import nn

    from wenlu.inference.draft import Draft
    from wenlu.inference.speculative import Lookup
    from wenlu.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Writing(Draws):
    """Flags of a command that writes text."""

    stop: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A text that ends what is written and is not part of it; may be given several times."""
    speculate: int = 0
    """Guess so many tokens ahead from the text itself, or by --draft (4 there unless given), and read them at once: the
    same text, sooner where guesses are right."""
    draft: str = ""
    """A smaller model with the same tokenizer that guesses."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: str = "f32"
    """f32, or bf16: half the bytes to read; texts may differ."""
    quantize: str = "none"
    """int8: weights in int8, a quarter of the memory; made once and kept in RUN/wenlu/int8.safetensors."""

    @property
    def sampling(self) -> dict[str, Any]:
        """Those of them that are `Settings`."""
        return {field.name: getattr(self, field.name) for field in fields(Draws)}

    @property
    def remedy(self) -> str:
        """What needs less memory."""
        rows = "fewer --rows, " if getattr(self, "rows", 1) > 1 else ""
        return f"{rows}--dtype bf16, --quantize int8, a smaller model or --device cpu need less"

    def check(self) -> None:
        """Raises UserError for what can be told to be wrong before a model is read."""
        check_format(self.dtype, self.quantize)
        if self.speculate < 0:
            raise UserError(f"speculate must be 0 (guess nothing) or more, not {self.speculate}")

    @contextmanager
    def model(
        self, reference: str, measured: bool = True
    ) -> Iterator[tuple[nn.Module, Tokenizer | None, Lookup | Draft | None]]:
        """The model and tokenizer of a folder or hub id, and what guesses for it; within this context fast (`measured`:
        `inference.kernels.fast`), if that gains anything. Raises UserError for a draft that does not fit."""
        from wenlu.inference.draft import Draft, check_same_tokens
        from wenlu.inference.speculative import Lookup

        self.check()
        how = (self.device, self.dtype, self.quantize, measured, self.remedy)
        with loaded(reference, *how) as (model, tokenizer):
            if not self.draft:
                yield model, tokenizer, Lookup(self.speculate) if self.speculate else None
                return
            with loaded(self.draft, *how) as (smaller, its_own):
                draft = Draft(smaller, self.speculate or Draft.tokens)
                draft.check(model, None if tokenizer is None else tokenizer.vocab)
                if tokenizer is not None:
                    check_same_tokens(its_own, tokenizer)
                yield model, tokenizer, draft
