"""Prompts as a model reads them: text and ids, through the chat format of its folder where they are conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wenlu.base.errors import UserError

if TYPE_CHECKING:
    from wenlu.inference.score import Query
    from wenlu.prompting.backend import Backend, FolderBackend
    from wenlu.prompting.template import Prompt


@dataclass(frozen=True)
class Rendered:
    """A prompt as it stands before a model."""

    text: str
    """Of a conversation, with what the chat template writes around what is said."""
    ids: tuple[int, ...]
    """Exactly what is read: one token that begins a document, where the model has such a token."""


def render(prompt: Prompt, backend: FolderBackend) -> Rendered:
    """Text and ids.

    Raises UserError for a conversation where the folder has no chat template, or where that refuses it, and for
    nothing at all where no token begins a document.
    """
    from wenlu.tokenization.chat_format import ChatFormat

    if not hasattr(backend, "prompt_ids"):
        raise UserError(f"{backend.name} is an endpoint, which does not show how it reads a prompt: name a folder")
    ids = backend.prompt_ids(prompt)
    if isinstance(prompt, str):
        return Rendered(prompt, ids)
    return Rendered(ChatFormat(backend.tokenizer).text(list(prompt), reply=True), ids)


def query(prompt: Prompt, continuations: Sequence[str], backend: Backend) -> Query:
    """What a backend is asked to score: a text as it is, of a conversation its ids.

    Raises UserError for a conversation where the backend is an endpoint, which reads only texts token by token.
    """
    from wenlu.inference.score import Query

    if isinstance(prompt, str):
        return Query(prompt, tuple(continuations))
    ids = getattr(backend, "prompt_ids", None)
    if ids is None:
        raise UserError(
            f"{backend.name} is an endpoint, which cannot score what follows a conversation: leave out the template's "
            "chat, let answers be written instead of scored, or take a model's folder"
        )
    return Query(ids(prompt), tuple(continuations))
