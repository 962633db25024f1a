"""Texts held to a form: one of several, a regular expression, a JSON schema or a grammar (llguidance, Moskal 2024)."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from wenlu.base.errors import UserError
from wenlu.tokenization.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Bool

KINDS = ("choices", "regex", "json_schema", "grammar")


@dataclass(frozen=True)
class Constraint:
    """What a whole text must be. Raises UserError for a form that cannot be read, or that no text has."""

    kind: str
    """choices, regex, json_schema or grammar."""
    source: str | tuple[str, ...]
    """Of choices a tuple of texts; a regular expression (Rust's, without look-around); a JSON schema as JSON; a grammar
    in Lark's notation, whose rule `start` is the text."""

    def __post_init__(self):
        if self.kind not in KINDS:
            raise UserError(f"a constraint is one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.kind == "choices":
            if isinstance(self.source, str) or not self.source or "" in self.source:
                raise UserError(f"choices must be one text or more, none of them empty, not {self.source!r}")
        elif not isinstance(self.source, str) or not self.source:
            raise UserError(f"a {self.kind} must be a text, and not empty, not {self.source!r}")
        if self.kind == "json_schema":
            self._check_json()
        from llguidance import LLMatcher

        failed, messages = LLMatcher.validate_grammar_with_warnings(self.grammar)
        if failed:
            raise UserError(f"this {self.kind} cannot be used: {_reason(messages)}")

    def _check_json(self) -> None:
        try:
            schema = json.loads(self.source)
        except ValueError as error:
            raise UserError(f"the JSON schema is no JSON ({error}): mend it") from None
        if not isinstance(schema, (dict, bool)):
            raise UserError(f"a JSON schema is an object, not {self.source[:40]}")

    @cached_property
    def grammar(self) -> str:
        """The same for llguidance."""
        from llguidance import LLMatcher

        if self.kind == "choices":
            return LLMatcher.grammar_from_regex("|".join(_escaped(choice) for choice in self.source))
        if self.kind == "json_schema":
            return LLMatcher.grammar_from_json_schema(self.source)
        of = {"regex": LLMatcher.grammar_from_regex, "grammar": LLMatcher.grammar_from_lark}
        return of[self.kind](self.source)


def _escaped(text: str) -> str:
    """A regular expression of this text alone."""
    return re.sub(r"([\\.+*?()|\[\]{}^$#&\-~/])", r"\\\1", text)


def _reason(messages: list[str] | str) -> str:
    """The first line of what llguidance says."""
    text = messages if isinstance(messages, str) else " ".join(messages)
    return " ".join(text.split())[:200]


class Constrainer:
    """A tokenizer's vocabulary as bytes, which constraints are matched against; made once for a model."""

    def __init__(self, tokenizer: Tokenizer, end_ids: Collection[int]):
        """end_ids: tokens that end a text; without any, a text ends where nothing may follow."""
        from llguidance import LLTokenizer

        self._vocab, self._ends = tokenizer.vocab, sorted(id for id in end_ids if id < tokenizer.vocab)
        special = {*tokenizer.special_ids, *self._ends}
        self._inner = LLTokenizer(_Vocabulary(tokenizer, special), eos_token=self._ends or [self._vocab])

    def matcher(self, constraint: Constraint) -> Matcher:
        """A text's way through a constraint. Raises UserError where it cannot be followed."""
        return Matcher(self._inner, constraint, self._vocab)


class _Vocabulary:
    """A tokenizer in the form that llguidance asks for."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer, special: set[int]):
        # A token beyond the vocabulary stands for the end where the tokenizer has none: it is never given out.
        self.tokens = [tokenizer.token_bytes(id) if id in tokenizer else b"" for id in range(tokenizer.vocab)] + [
            b"<end>"
        ]
        self.special_token_ids = [*sorted(special), tokenizer.vocab]
        self.eos_token_id, self.bos_token_id = tokenizer.vocab, None

        self._ids = {piece: id for id, piece in enumerate(self.tokens) if piece and id not in special}
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: str | bytes) -> list[int]:
        """Tokens of what a constraint leaves no choice in, the longest first: by bytes, since a tokenizer's own way of
        encoding a text may put a space before it, and part of a character is no text."""
        rest, ids = text.encode() if isinstance(text, str) else text, []
        while rest:
            sizes = range(min(self._longest, len(rest)), 0, -1)
            size = next((size for size in sizes if rest[:size] in self._ids), 0)
            if not size:
                break
            ids.append(self._ids[rest[:size]])
            rest = rest[size:]
        return ids


class Matcher:
    """Where a text stands in its constraint: what may come next, and whether it is complete."""

    def __init__(self, tokenizer: Any, constraint: Constraint, vocab: int):
        from llguidance import LLMatcher

        self._inner, self._vocab = LLMatcher(tokenizer, constraint.grammar, log_level=0), vocab
        self._refuse_error()

    @property
    def complete(self) -> bool:
        """Whether the text may end here."""
        return self._inner.is_accepting()

    @property
    def done(self) -> bool:
        """Whether it must: nothing may follow."""
        return self._inner.is_stopped() or (self.complete and not self.allowed(ends=False).any())

    def allowed(self, ends: bool = True) -> Bool[Tensor, " vocab"]:
        """True for each token that may come next; end tokens only where the text is complete."""
        bits = np.frombuffer(self._inner.compute_bitmask(), dtype=np.uint8)
        self._refuse_error()
        found = torch.from_numpy(np.unpackbits(bits, bitorder="little")[: self._vocab].astype(bool))
        return found

    def push(self, token: int) -> None:
        """The text goes on with this token, one of those that are allowed."""
        taken = self._inner.consume_token(token)
        assert taken or self._inner.is_error(), f"the token {token} is not allowed here"
        self._refuse_error()

    def _refuse_error(self) -> None:
        if self._inner.is_error():
            raise UserError(f"the constraint cannot be followed further: {_reason(self._inner.get_error())}")
