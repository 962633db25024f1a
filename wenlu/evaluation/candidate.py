"""A model that tasks are put to: how it reads prompts, scores texts and writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from wenlu.inference.batch import Options
from wenlu.inference.generator import Generator
from wenlu.inference.prefix import ROOM
from wenlu.inference.score import Query, Scorer
from wenlu.prompting.backend import FolderBackend
from wenlu.prompting.rendering import query, render
from wenlu.prompting.template import Prompt
from wenlu.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class Candidate:
    """A model, its tokenizer, and what names its weights."""

    model: nn.Module
    tokenizer: Tokenizer | None
    name: str = "model"
    identity: str = ""
    """What results depend on besides the prompts: a hash of the weights, the number format."""

    @property
    def family(self) -> str:
        """Its family's name."""
        return self.model.config.family

    @cached_property
    def scorer(self) -> Scorer:
        """As a judge of texts."""
        return Scorer(self.model, self.tokenizer)

    @cached_property
    def generator(self) -> Generator:
        """As a writer of what follows a text or ids."""
        return Generator(self.model, self.tokenizer, options=Options(prefix_bytes=ROOM))

    @cached_property
    def replier(self) -> Generator:
        """As a writer of replies in a conversation."""
        return Generator(self.model, self.tokenizer, chat=True, options=Options(prefix_bytes=ROOM))

    @cached_property
    def backend(self) -> FolderBackend:
        """As prompting knows it: what reads conversations."""
        return FolderBackend((self.model, self.tokenizer), name=self.name, prefix_bytes=0)

    def query(self, ask: tuple[Prompt, Sequence[str]]) -> Query:
        """A prompt and what might follow it, as the scorer is asked."""
        return query(*ask, self.backend)

    def text(self, prompt: Prompt) -> str:
        """A prompt as text, with what a chat template writes around what is said."""
        return prompt if isinstance(prompt, str) else render(prompt, self.backend).text

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """A prompt as it is read by the writer: with exactly one token that begins a document, where there is one."""
        return list(self.backend.prompt_ids(prompt))
