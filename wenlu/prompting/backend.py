"""Backends: one face over whatever answers prompts, a model's folder or an endpoint, and what each of them can do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from wenlu.base.config import to_dict
from wenlu.base.errors import UserError
from wenlu.base.log import counted, say

if TYPE_CHECKING:
    from torch import nn

    from wenlu.inference.generator import Generator, Settings
    from wenlu.inference.score import Query, Score
    from wenlu.inference.stream import Result
    from wenlu.tokenization.chat_format import ChatFormat, Message
    from wenlu.tokenization.tokenizer import Tokenizer

    Prompt = str | tuple[Message, ...]
    """A text that a model goes on with, or a conversation whose next part is the assistant's."""


class Failed(UserError):
    """What was asked for came to nothing, as it might not another time: such an answer is none, neither right nor
    wrong."""


class Level(Enum):
    """What can be had from a backend; each can do what those after it can."""

    A = "all logits, of a model that is here"
    B = "log-probabilities of a prompt's tokens"
    C = "log-probabilities of the tokens written, and of the likeliest at each place"
    D = "text only"

    @property
    def scores(self) -> bool:
        """Whether given texts can be scored."""
        return self in (Level.A, Level.B)

    @property
    def log_probabilities(self) -> bool:
        """Whether those of written tokens are known."""
        return self is not Level.D


@dataclass(frozen=True)
class Written:
    """What was written after one prompt."""

    text: str
    finish: str
    """As of `inference.generator.Result`; after an error there is no text. An endpoint says stop for an end token too,
    and may have words of its own."""
    prompt_tokens: int | None
    """None where an endpoint does not say."""
    tokens: int | None
    """How many were made."""
    log_probabilities: tuple[float, ...] = ()
    """In nats, of the tokens made, where `Settings.alternatives` asked for them."""
    alternatives: tuple[tuple[tuple[str, float], ...], ...] = ()
    """(text, log-probability) of the likeliest tokens at each place; half a character is shown as U+FFFD."""
    error: str = ""
    """Why there is no text, where finish is error."""


@dataclass(frozen=True)
class Spent:
    """What answers have cost; of those kept from before, nothing."""

    requests: int = 0
    """Sent to an endpoint."""
    prompt_tokens: int = 0
    """Read; of what is scored, continuations too."""
    tokens: int = 0
    """Written."""
    money: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(one + more for one, more in zip(astuple(self), astuple(other), strict=True)))

    def since(self, before: Spent) -> Spent:
        """What was spent more than before."""
        return Spent(*(one - less for one, less in zip(astuple(self), astuple(before), strict=True)))

    @property
    def all_tokens(self) -> int:
        """Read and written."""
        return self.prompt_tokens + self.tokens


class Backend(Protocol):
    """Whatever answers prompts."""

    @property
    def name(self) -> str:
        """To be shown to people."""

    @property
    def level(self) -> Level:
        """Of an endpoint, as a probe has found it."""

    @property
    def fingerprint(self) -> str:
        """Equal where answers are to be compared: hex sha256 of all that is known of the model."""

    @property
    def spent(self) -> Spent:
        """So far."""

    @property
    def tokens_used(self) -> int:
        """Tokens read and written so far; of what is kept from before, none."""

    @property
    def tokens_kept(self) -> int:
        """Tokens that kept answers, which were asked for again, would have cost anew."""

    def score(
        self, queries: Sequence[Query], advance: Callable[[int], None] | None = None
    ) -> list[list[Score] | Failed]:
        """Of each continuation of each query, or why there are none; `advance` is told how many queries more are done.
        Raises UserError where the level has no scores, and Failed where all fail."""

    def generate(
        self, prompts: Sequence[Prompt], settings: Settings, advance: Callable[[int], None] | None = None
    ) -> list[Written]:
        """A text after each prompt; what one becomes does not depend on the others, and each draws with the settings'
        seed. One that fails ends with `error`, and Failed is raised where all do. `advance` is told how many prompts
        more are done. Raises UserError for what the level cannot do."""


def refused(name: str, level: Level, what: str, way_out: str) -> UserError:
    """Of what a backend's level cannot do."""
    return UserError(f"{name} is of level {level.name} ({level.value}), which has no {what}: {way_out}")


class FolderBackend:
    """A model that is here: level A.

    >>> backend = FolderBackend("runs/book")
    >>> backend.score([Query("Two and two are", (" four.", " five."))])
    """

    level, tokens_kept = Level.A, 0

    def __init__(
        self,
        model: Path | str | tuple[nn.Module, Tokenizer],
        *,
        name: str = "",
        prefix_bytes: int | None = None,
        rows: int = 64,
    ):
        """model: a folder or hub id, or a model and its tokenizer that are loaded already. prefix_bytes: room for keys
        and values of what prompts begin with alike, which is read once; None = 256 MiB. rows: most texts written side
        by side.

        Raises UserError where model and tokenizer do not belong together.
        """
        from wenlu.inference.batch import Options
        from wenlu.inference.prefix import ROOM
        from wenlu.inference.score import Scorer

        if isinstance(model, tuple):
            self.name = name or f"a model of the family {model[0].config.family}"
        else:
            from wenlu.hub.folder import load

            self.name = name or str(model)
            model = load(model)
        self.model, self.tokenizer = model
        self._options = Options(rows, ROOM if prefix_bytes is None else prefix_bytes)
        self._scorer = Scorer(self.model, self.tokenizer)
        self._generators: dict[bool, Generator] = {}
        self._read_tokens = self._written_tokens = self._beyond = 0

    @property
    def spent(self) -> Spent:
        """Tokens that were read for scores, each beginning once, and those of prompts and texts that were written."""
        return Spent(0, self._scorer.tokens_read + self._read_tokens, self._written_tokens)

    @property
    def tokens_used(self) -> int:
        """The same in one number."""
        return self.spent.all_tokens

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of the answers so far: how many texts were longer than the model learned to read."""
        if not (beyond := self._scorer.beyond_context + self._beyond):
            return ()
        context = self.model.config.context
        return (f"{counted(beyond, 'text')} went on beyond the {context:,} tokens that {self.name} was trained on",)

    @cached_property
    def fingerprint(self) -> str:
        """Hex sha256 of the weights as they are used (their number format counts), the configuration, the tokenizer and
        its chat template: the same however the model came here."""
        tokenizer = self.tokenizer
        parts = [weights_hash(self.model), to_dict(self.model.config), tokenizer.fingerprint, tokenizer.begins]
        whole = json.dumps([*parts, tokenizer.chat_template], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(whole.encode()).hexdigest()

    def score(self, queries: Sequence[Query], advance: Callable[[int], None] | None = None) -> list[list[Score]]:
        """Of each continuation of each query (`inference.score.Scorer`)."""
        return self._scorer.score_all(queries, advance)

    def generate(
        self, prompts: Sequence[Prompt], settings: Settings, advance: Callable[[int], None] | None = None
    ) -> list[Written]:
        """A text after each prompt, written side by side; texts begin with the token that begins a document, and
        conversations are as the folder's chat template writes them.

        Texts that fail (logits that are not finite) are said, and end with `error`. Raises Failed where all do, and
        UserError for an empty conversation, and for one where the folder has no chat template.
        """
        tell = advance or (lambda _: None)
        if settings.beams > 1:
            found = []
            for prompt in prompts:
                found.append(self._written(self._writer(prompt).generate(self._ids(prompt), settings)[0]))
                tell(1)
            return found
        streams = [self._writer(prompt).stream(self._ids(prompt), settings) for prompt in prompts]
        done = 0
        for generator in self._generators.values():
            going = True
            while going:
                going = generator.engine.step()
                for stream in streams:
                    stream.pull()
                now = sum(stream.done for stream in streams)
                if now > done:
                    tell(now - done)
                    done = now
        errors = [stream.error for stream in streams if stream.error is not None]
        if errors and len(errors) == len(streams):
            raise Failed(str(errors[0]))
        if errors:
            say(f"{len(errors)} of {len(streams)} texts have failed; the first: {errors[0]}")
        return [
            replace(self._written(stream.so_far), text="", error=str(stream.error))
            if stream.error is not None
            else self._written(stream.so_far)
            for stream in streams
        ]

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The tokens that a prompt is read as: what a `Query` wants whose prefix is a conversation."""
        return tuple(self._ids(prompt))

    def _ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return self._writer(prompt).prompt_ids(prompt)
        if not prompt:
            raise UserError("a conversation needs at least one message: give it what the user says")
        return self._format.prompt(prompt)

    @cached_property
    def _format(self) -> ChatFormat:
        from wenlu.tokenization.chat_format import ChatFormat

        if self.model.config.family == "t5" or self.tokenizer.chat_template is None:
            why = "is a t5, which reads texts" if self.model.config.family == "t5" else "has no chat template"
            raise UserError(f"{self.name} {why}: write the prompts as text, or tune a model on conversations first")
        return ChatFormat(self.tokenizer)

    def _writer(self, prompt: Prompt) -> Generator:
        """Of texts, or of conversations: a text goes on with its prompt, what answers begins one of its own."""
        from wenlu.inference.generator import Generator

        chat = not isinstance(prompt, str)
        if chat not in self._generators:
            _ = self._format if chat else None
            self._generators[chat] = Generator(self.model, self.tokenizer, chat=chat, options=self._options)
        return self._generators[chat]

    def _written(self, result: Result) -> Written:
        def shown(id: int) -> str:
            return self.tokenizer.token_bytes(id).decode("utf-8", "replace")

        self._read_tokens += result.prompt_tokens
        self._written_tokens += len(result.ids)
        self._beyond += result.beyond_context
        alternatives = tuple(tuple((shown(id), value) for id, value in place) for place in result.alternatives)
        written = Written(result.text, result.finish, result.prompt_tokens, len(result.ids), result.log_probabilities)
        return replace(written, alternatives=alternatives if any(alternatives) else ())


def weights_hash(model: nn.Module) -> str:
    """Hex sha256 of a model's parameters and buffers: names, number formats, shapes and bytes."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
