"""Prompts as a model reads them: text and ids, through the chat format of its folder where they are conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from wenlu.base.errors import UserError
from wenlu.prompting.template import Prompt

if TYPE_CHECKING:
    from torch import nn

    from wenlu.inference.score import Query
    from wenlu.tokenization.chat_format import ChatFormat
    from wenlu.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class Rendered:
    """A prompt as it stands before a model."""

    text: str
    """Of a conversation, with what the chat template writes around what is said."""
    ids: tuple[int, ...]
    """Exactly what is read: one token that begins a document, where the model has such a token."""


class Renderer:
    """A model and its tokenizer as readers of prompts.

    >>> Renderer(*load("runs/chat")).render(template.render(example)).ids
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer | None):
        """Raises UserError where they do not belong together."""
        from wenlu.inference.generator import begin_id, check_together

        check_together(model, tokenizer)
        self._tokenizer = tokenizer
        self._begin = begin_id(model, tokenizer)

    def render(self, prompt: Prompt) -> Rendered:
        """Text and ids. Raises UserError for a conversation where the folder has no chat template, or where that
        refuses it, and for nothing at all where no token begins a document."""
        if not isinstance(prompt, str):
            messages = list(prompt)
            return Rendered(self._format.text(messages, reply=True), tuple(self._format.prompt(messages)))
        if not prompt and self._begin is None:
            raise UserError("the prompt is empty, and this tokenizer has no token that begins a text: write something")
        ids = self._tokenizer.encode(prompt) if prompt else []
        return Rendered(prompt, ((self._begin,) if self._begin is not None else ()) + tuple(ids))

    def query(self, prompt: Prompt, continuations: Sequence[str]) -> Query:
        """What a Scorer is asked: a text as it is, of a conversation its ids."""
        from wenlu.inference.score import Query

        return Query(prompt if isinstance(prompt, str) else self.render(prompt).ids, tuple(continuations))

    @cached_property
    def _format(self) -> ChatFormat:
        from wenlu.tokenization.chat_format import ChatFormat

        if self._tokenizer.chat_template is None:
            raise UserError(
                "the prompt is a conversation, but the model's folder has no chat template: leave out the template's "
                "chat, or tune the model on conversations first"
            )
        return ChatFormat(self._tokenizer)
