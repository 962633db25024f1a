"""A conversation with a model: turns in, answers out, and the oldest turns left out where the context ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path

from torch import nn

from wenlu.base.errors import UserError
from wenlu.base.files import atomic_write
from wenlu.base.log import make_folder_of
from wenlu.inference.batch import Options
from wenlu.inference.generator import Generator, Settings
from wenlu.inference.stream import Result, Stream
from wenlu.tokenization.chat_format import ChatFormat, Message
from wenlu.tokenization.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")


class Conversation:
    """What was said so far, and the model that answers.

    >>> conversation = Conversation(*load("runs/chat"), system="You are brief.")
    >>> for piece in conversation.ask("Who are you?"): print(piece, end="")
    """

    def __init__(
        self, model: nn.Module, tokenizer: Tokenizer | None, *, system: str = "", options: Options | None = None
    ):
        """Raises UserError for a model that cannot chat: one that cannot write, or whose folder has no template."""
        self._generator = Generator(model, tokenizer, chat=True, options=options)
        self._format, self.context = ChatFormat(tokenizer), model.config.context
        self.messages: list[Message] = []
        """All that was said, the system's message first, if there is one."""
        self.system(system)

    def system(self, text: str) -> None:
        """Another system message; none where it is empty."""
        said = [message for message in self.messages if message["role"] != "system"]
        self.messages = [*([{"role": "system", "content": text}] if text else []), *said]

    def reset(self) -> None:
        """Forget what was said, but for the system's message."""
        self.messages = [message for message in self.messages if message["role"] == "system"]

    def ask(self, text: str, settings: Settings | None = None) -> Answer:
        """The answer to one more message of the user's. UserError for one that has no room in the context, or (from the
        answer) where none can be written; the message is then not part of the conversation."""
        before = list(self.messages)
        self.messages.append({"role": "user", "content": text})
        return self._answer(settings or Settings(), before)

    def again(self, settings: Settings | None = None) -> Answer:
        """Another answer in place of the last one; with the same settings it is the same. UserError where there is none
        yet, or where none can be written; the last one then stays."""
        before, asked = list(self.messages), len(self.messages)
        while asked and before[asked - 1]["role"] == "assistant":
            asked -= 1
        if not asked or before[asked - 1]["role"] != "user":
            raise UserError("there is no answer to give again: ask something first")
        del self.messages[asked:]
        return self._answer(settings or Settings(), before)

    def save(self, file: Path) -> None:
        """Write all that was said. UserError for a file that holds anything else than a saved conversation."""
        if file.exists():
            try:
                read_messages(file)
            except UserError as error:
                raise UserError(f"{error}; it is not overwritten: name another file") from None
        make_folder_of(file)
        atomic_write(file, json.dumps({"messages": self.messages}, ensure_ascii=False, indent=1))

    def load(self, file: Path) -> None:
        """Go on with a conversation that was saved. UserError for any other file; then nothing changes."""
        self.messages = read_messages(file)

    def _answer(self, settings: Settings, before: list[Message]) -> Answer:
        """before: the messages that there are again where none can be written."""
        try:
            ids, dropped = self._fitting(settings)
            return Answer(self._generator.stream(ids, settings), self.messages, before, dropped)
        except UserError:
            self.messages[:] = before
            raise

    def _fitting(self, settings: Settings) -> tuple[list[int], int]:
        """The prompt with as many of the last turns as leave room for an answer, and how many turns are left out."""
        room = self.context - min(settings.max_tokens, self.context // 2)
        system = [message for message in self.messages if message["role"] == "system"]
        said = self.messages[len(system) :]
        starts = [place for place, message in enumerate(said) if message["role"] == "user"]
        for dropped, start in enumerate(starts):
            ids = self._format.prompt([*system, *said[start:]])
            if len(ids) <= room:
                return ids, dropped
        raise UserError(
            f"this message and the template take {len(ids)} tokens, but the model reads {self.context} and its answer "
            f"needs {self.context - room} of them: make it shorter, or set max_tokens lower"
        )


def read_messages(file: Path) -> list[Message]:
    """Those of a saved conversation. UserError for any other file, and for one that would lose turns."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{file} is no saved conversation ({error})") from None
    messages = found.get("messages") if isinstance(found, dict) else None
    if not isinstance(messages, list) or not all(map(_is_message, messages)):
        raise UserError(f"{file} is no saved conversation: it must hold messages, each with role and content")
    said = list(dropwhile(lambda role: role == "system", (message["role"] for message in messages)))
    if "system" in said:
        raise UserError(f"{file} holds a system message after its beginning: put it first, or remove it")
    if said[:1] == ["assistant"]:
        raise UserError(f"{file} begins with an answer, which nobody would see: put what was asked before it")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _is_message(found: object) -> bool:
    return isinstance(found, dict) and found.get("role") in ROLES and isinstance(found.get("content"), str)


class Answer:
    """An answer in pieces, as they become certain; it is part of the conversation once it has ended, or is stopped."""

    def __init__(self, stream: Stream, messages: list[Message], before: list[Message], dropped: int):
        self._stream, self._messages, self._before, self._kept = stream, messages, before, False
        self.dropped = dropped
        """How many of the oldest turns the model did not see, for want of room."""

    def __iter__(self) -> Iterator[str]:
        try:
            yield from self._stream
        finally:
            if self._stream.done:
                self._keep()

    def stop(self) -> None:
        """End it here; what came of it is kept."""
        self._stream.cancel()
        self._keep()

    @property
    def result(self) -> Result:
        """The whole. UserError where it cannot be written."""
        self._keep()
        return self._stream.result

    def _keep(self) -> None:
        """Make it part of the conversation, or leave that as it was before, once."""
        if self._kept:
            return
        self._kept = True
        try:
            self._messages.append({"role": "assistant", "content": self._stream.result.text})
        except UserError:
            self._messages[:] = self._before
            raise
