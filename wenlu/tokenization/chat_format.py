"""Conversations → text, ids and loss mask, by the chat template of a model's folder or by a default one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from wenlu.base.errors import UserError
from wenlu.tokenization.form import FormEncoder, Span
from wenlu.tokenization.tokenizer import Tokenizer

Message = dict[str, str]
"""`role` (system, user, assistant, …) and `content`."""

START, END = "<|im_start|>", "<|im_end|>"
_OF_MESSAGE = "'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'"
DEFAULT = (
    "{{- BOS }}{%- for message in messages %}{{- " + _OF_MESSAGE + " }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""ChatML (OpenAI 2023); BOS becomes the tokenizer's own beginning token, where it has one that is not its end token."""

_OPEN, _CLOSE, _ZERO = "\ufdd0", "\ufdd1", 0xFDD2
"""Around the number of a mark: characters that Unicode keeps for use within programs."""
_MARK = re.compile(f"{_OPEN}([{chr(_ZERO)}-{chr(_ZERO + 9)}]+){_CLOSE}")
_RESERVED = re.compile(f"[{_OPEN}-{chr(_ZERO + 9)}]")
_THOUGHTS = re.compile(r"(</?think>)")
"""Tags that templates take a reply apart by."""


@dataclass(frozen=True)
class Conversation:
    """One conversation as a model reads it."""

    text: str
    ids: list[int]
    mask: list[bool]
    """What is learned: the assistant's tokens, and the token that ends each of its parts."""


@dataclass(frozen=True)
class _Piece:
    """A part of a message's content, and where it came to lie in the text."""

    message: int
    start: int
    end: int


class ChatFormat:
    """How a model's folder writes conversations.

    Where the assistant's part lies is found by rendering twice, once with marks inside the contents: whatever a
    template does around them or to them, the marks show where they went. Both renderings must agree but for the marks.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        source = tokenizer.chat_template
        if isinstance(source, list):
            named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
            source = named.get("default")
        if not isinstance(source, str):
            raise UserError(
                "the model's folder has no chat template, or several of which none is named default: "
                "mend chat_template in its tokenizer_config.json"
            )
        self._template = compile_template(source)
        self._encoder = FormEncoder(tokenizer)
        roles = ((role, tokenizer.role_token(role)) for role in ("bos", "eos", "pad"))
        self._names = {f"{role}_token": token for role, token in roles if token is not None}

    def text(self, messages: Sequence[Message], *, reply: bool = False) -> str:
        """What the template makes of a conversation; `reply`: with the beginning of the assistant's next part."""
        import jinja2

        try:
            return self._template.render(
                messages=list(messages), add_generation_prompt=reply, tools=None, documents=None, **self._names
            )
        except jinja2.TemplateError as error:
            raise UserError(f"the chat template refuses the conversation: {error}") from None
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            raise UserError(f"the chat template fails on the conversation ({type(error).__name__}: {error})") from None

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids after which the assistant's reply follows; no loss is taken on them."""
        text, pieces = self._located(messages, reply=True)
        return self._single_beginning(self._encoder.encode(text, [(p.start, p.end) for p in pieces])[0])

    def encode(self, messages: Sequence[Message]) -> Conversation:
        """Text, ids and loss mask of a whole conversation.

        Raises `UserError` where the assistant's part cannot be found exactly, or is ended by no special token.
        """
        text, pieces = self._located(messages)
        written = [(piece.start, piece.end) for piece in pieces]
        ids, spans = self._encoder.encode(text, written)
        learned = self._learned(text, messages, pieces)
        # A reply's first token may begin with the space that the template writes before it.
        mask = [any(a < end and (a >= start or b > start) for start, end in learned) for a, b in spans]
        return Conversation(text, self._single_beginning(ids), mask)

    def _single_beginning(self, ids: list[int]) -> list[int]:
        begin = self.tokenizer.bos_id
        if begin is not None and ids[:2] == [begin, begin]:
            raise UserError("the chat template begins a conversation with two beginning tokens: mend chat_template")
        return ids

    def _located(self, messages: Sequence[Message], reply: bool = False) -> tuple[str, list[_Piece]]:
        """The rendered text and where the contents lie in it, in the order of the text."""
        if any(_RESERVED.search(message["content"]) for message in messages):
            raise UserError("a message holds a noncharacter (U+FDD0 to U+FDDB), which no text may: remove it")
        marked, owners = [], []
        for number, message in enumerate(messages):
            parts = _THOUGHTS.split(message["content"]) if message["role"] == "assistant" else [message["content"]]
            for index in range(0, len(parts), 2):
                if core := parts[index].strip():
                    before, after = parts[index].split(core, 1) if core else ("", "")
                    parts[index] = before + _mark(2 * len(owners)) + core + _mark(2 * len(owners) + 1) + after
                    owners.append(number)
            marked.append({**message, "content": "".join(parts)})
        with_marks = self.text(marked, reply=reply)
        text = _MARK.sub("", with_marks)
        if text != self.text(messages, reply=reply):
            raise UserError("the chat template changes what messages say, so the assistant's part cannot be located")
        return text, _pieces(with_marks, owners)

    def _learned(self, text: str, messages: Sequence[Message], pieces: list[_Piece]) -> list[Span]:
        """The stretches of the assistant's parts, each with the token that ends it."""
        special = self._encoder.special(text, [(piece.start, piece.end) for piece in pieces])
        found = []
        for number, message in enumerate(messages):
            if message["role"] != "assistant" or not message["content"].strip():
                continue
            own = [piece for piece in pieces if piece.message == number]
            if not own:
                raise UserError(f"the chat template leaves out message {number + 1}, the assistant's: it has no target")
            first, last = own[0].start, own[-1].end
            before = max((piece.end for piece in pieces if piece.end <= first), default=0)
            after = min((piece.start for piece in pieces if piece.start >= last), default=len(text))
            place = text.rfind(self._opening, before, first) if self._opening else -1
            start = place + len(self._opening) if place >= 0 else first
            end = next((end for begin, end in special if last <= begin and end <= after), None)
            if end is None:
                raise UserError(
                    "the chat template ends the assistant's part with no special token, so that a model would not "
                    "learn to stop: mend chat_template"
                )
            found.append((start, end))
        return found

    @cached_property
    def _opening(self) -> str:
        """What the template writes before the assistant's reply; empty where that cannot be told apart."""
        question = [{"role": "user", "content": "x"}]
        try:
            without, whole = self.text(question), self.text(question, reply=True)
        except UserError:
            return ""
        return whole.removeprefix(without) if whole.startswith(without) else ""


def with_template(tokenizer: Tokenizer) -> tuple[Tokenizer, list[str]]:
    """The tokenizer with a chat template, the default one where it has none, and the special tokens new to it."""
    if tokenizer.chat_template is not None:
        return tokenizer, []
    names = {tokenizer.token_bytes(id).decode() for id in tokenizer.special_ids}
    new = [token for token in (START, END) if token not in names]
    own_beginning = tokenizer.bos_id not in (None, tokenizer.eos_id) and tokenizer.role_token("bos") != START
    template = DEFAULT.replace("{{- BOS }}", "{{- bos_token }}" if own_beginning else "")
    return tokenizer.extended(new, chat_template=template, eos=END), new


def compile_template(source: str) -> Any:
    """A chat template as Jinja, in a sandbox: it can read what it is given, and nothing else."""
    import jinja2

    try:
        return sandbox().from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"the chat template is no Jinja (line {error.lineno}: {error.message})") from None


def sandbox() -> Any:
    """The environment of Transformers (`apply_chat_template`), but that a name which is not there is refused as soon as
    it is written or looked into, instead of becoming nothing."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` … `{% endgeneration %}`, which some templates put around the assistant's part."""

        tags = frozenset({"generation"})

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.Scope(body, lineno=line)

    class Absent(jinja2.StrictUndefined):
        """May be asked for (`if message.tool_calls`), as templates do, and not be used."""

        __slots__ = ()

        def __bool__(self) -> bool:
            return False

    def refuse(message: str):
        raise jinja2.TemplateError(message)

    def to_json(value: Any, indent: int | None = None, **others: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent, **others)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=Absent, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _mark(number: int) -> str:
    return _OPEN + "".join(chr(_ZERO + int(digit)) for digit in str(number)) + _CLOSE


def _pieces(with_marks: str, owners: list[int]) -> list[_Piece]:
    """Where the marked pieces lie in the text without the marks; those that a template left out are absent."""
    places: dict[int, int] = {}
    removed = 0
    for match in _MARK.finditer(with_marks):
        number = int("".join(str(ord(digit) - _ZERO) for digit in match[1]))
        if number in places:
            raise UserError("the chat template writes a message twice, so the assistant's part cannot be located")
        places[number] = match.start() - removed
        removed += len(match[0])
    found = []
    for number, owner in enumerate(owners):
        start, end = places.get(2 * number), places.get(2 * number + 1)
        if (start is None) != (end is None):
            raise UserError(f"the chat template cuts message {owner + 1}, so its part cannot be located")
        if start is not None and end is not None:
            found.append(_Piece(owner, start, end))
    return sorted(found, key=lambda piece: piece.start)
