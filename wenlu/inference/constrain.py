"""Constrained decoding: of all tokens, those after which the text can still become what was asked for.

The automata are llguidance's (github.com/guidance-ai/llguidance); it is given the bytes of every token, nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from wenlu.base.errors import UserError, did_you_mean
from wenlu.tokenization.encoder import require_unicode
from wenlu.tokenization.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from llguidance import LLMatcher

KINDS = ("choices", "regex", "json_schema", "grammar")
ONE_LINE = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
"""JSON on one line. With white space free, a weak model writes nothing else and never ends."""
_EVERY_TOKEN = '\n%llguidance {"no_forcing": true}'
"""Where the next bytes are certain, llguidance would else allow only the tokens that it thinks `encode` gives."""
_WAYS_OUT = {
    "regex": "use Rust's syntax, without look-around, ^ and $: the whole text must match anyway",
    "json_schema": "leave out or change what it names",
    "grammar": "write it in llguidance's Lark, with a rule `start`",
}


@dataclass(frozen=True)
class Constraint:
    """What the whole text must be. Raises UserError for what cannot be read, or cannot be asked for."""

    kind: str
    """choices, regex, json_schema or grammar."""
    source: Any
    """Texts to choose from; a regular expression (Rust's syntax: `\\d` is a digit of any script); a JSON schema, as a
    dict or as JSON, kept as JSON; or a grammar in llguidance's dialect of Lark. A schema's properties come in its
    order, on one line (`ONE_LINE`; `x-guidance` in the schema says otherwise)."""

    def __post_init__(self):
        if self.kind not in KINDS:
            near = did_you_mean(str(self.kind), KINDS)
            raise UserError(f"a constraint is one of {', '.join(KINDS)}, not {self.kind!r}.{near}")
        if self.kind == "choices":
            object.__setattr__(self, "source", _choices(self.source))
            return
        if self.kind == "json_schema":
            object.__setattr__(self, "source", _schema_text(self.source))
        elif not isinstance(self.source, str) or not self.source:
            raise UserError(f"a {self.kind} must be a text, and not an empty one, not {self.source!r}")
        require_unicode(self.source)
        self._check()

    def _check(self) -> None:
        from llguidance import LLMatcher

        # As it was written: what is wrong then comes with its own line numbers.
        own = {
            "regex": LLMatcher.grammar_from_regex,
            "json_schema": LLMatcher.grammar_from_json_schema,
            "grammar": LLMatcher.grammar_from_lark,
        }
        _, said = LLMatcher.validate_grammar_with_warnings(own[self.kind](self.source))
        if said:
            raise UserError(
                f"the {self.kind} {_short(self.source)} cannot be used: {_gist(said[0])}\n{_WAYS_OUT[self.kind]}"
            )

    @cached_property
    def lark(self) -> str:
        """The same as a grammar for llguidance."""
        match self.kind:
            case "grammar":
                return self.source + _EVERY_TOKEN
            case "json_schema":
                schema = json.loads(self.source)
                schema["x-guidance"] = ONE_LINE | schema.get("x-guidance", {})
                return "start: %json " + json.dumps(schema, ensure_ascii=False) + _EVERY_TOKEN
        regex = "|".join(map(_escaped, self.source)) if self.kind == "choices" else self.source
        from llguidance import LLMatcher

        return json.loads(LLMatcher.grammar_from_regex(regex))["grammars"][0]["lark_grammar"] + _EVERY_TOKEN


def _choices(source: Any) -> tuple[str, ...]:
    if not isinstance(source, (tuple, list)) or not source or not all(isinstance(text, str) for text in source):
        raise UserError(f"choices must be a list of texts, at least one, not {source!r}")
    if "" in source:
        raise UserError("choices must not hold an empty text: remove it, or give it a name such as 'none'")
    for text in source:
        require_unicode(text)
    if len(set(source)) < len(source):
        twice = next(text for i, text in enumerate(source) if text in source[:i])
        raise UserError(f"choices hold {twice!r} twice: remove one of them")
    return tuple(source)


def _schema_text(source: Any) -> str:
    try:
        schema = json.loads(source) if isinstance(source, str) else json.loads(json.dumps(source, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"the json_schema {_short(source)} is not JSON ({error}): mend it") from None
    if not isinstance(schema, dict):
        raise UserError(f'a json_schema must be an object such as {{"type": "string"}}, not {_short(source)}')
    if not isinstance(schema.get("x-guidance", {}), dict):
        raise UserError(f"x-guidance in a json_schema must be an object, not {schema['x-guidance']!r}")
    return json.dumps(schema, ensure_ascii=False)


def _escaped(text: str) -> str:
    """The regular expression of one text. (`re.escape` writes marks such as `\\<` that mean something to Rust.)"""
    return re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", text)


def _short(source: Any, size: int = 60) -> str:
    text = source if isinstance(source, str) else str(source)
    return repr(text if len(text) <= size else text[:size] + "…")


def _gist(said: str) -> str:
    """The one line of llguidance's many that says what is wrong (of a regex: the last)."""
    if "no tokenizer" in said:
        return "it names a special token, and those are no text"
    lines = [line for line in said.splitlines() if line.strip()]
    if "(in regex): " in lines[0]:
        lines[0] = lines[0].split("(in regex): ")[1]
    fault = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), None)
    return fault or re.sub(r"^at (\d+)\((\d+)\): ", r"line \1, column \2: ", lines[0])


class Constrainer:
    """A tokenizer as llguidance needs it; built once, it makes the matchers of any number of texts."""

    def __init__(self, tokenizer: Tokenizer, vocab: int, eos_ids: Iterable[int]):
        """`vocab`: rows of the model's head. `eos_ids`: what ends a text.

        Raises UserError where no end token lies in 0 to vocab - 1: a text could never end.
        """
        from llguidance import LLTokenizer

        self.tokenizer, self.vocab = tokenizer, vocab
        self.eos_ids = tuple(sorted(set(eos_ids)))
        if not self.eos_ids or not all(0 <= id < vocab for id in self.eos_ids):
            given = ", ".join(map(str, self.eos_ids)) or "none"
            raise UserError(
                f"a constrained text needs end tokens with ids in 0 to {vocab - 1}, not {given}: name an eos"
            )
        self._special = tokenizer.special_ids | set(self.eos_ids)
        ids = range(max(tokenizer.vocab, vocab))
        pieces = [tokenizer.token_bytes(id) if id in tokenizer else b"" for id in ids]
        # Where a text's first token loses a space, every token it happens to stands there a second time, without it.
        first = {id: tokenizer.rule.first(pieces[id]) for id in ids if id not in self._special}
        changed = [id for id, piece in first.items() if piece != pieces[id]]
        self.first_ids = {id: len(pieces) + place for place, id in enumerate(changed)}
        """Token → its id in llguidance at the beginning of a text, where that is another."""
        self._row_of_first = np.arange(len(pieces))
        self._row_of_first[changed] = [self.first_ids[id] for id in changed]
        words = _Words([*pieces, *(first[id] for id in changed)], self._special, self.eos_ids[0])
        self._inner = LLTokenizer(words, eos_token=list(self.eos_ids))
        self._text = np.zeros(vocab, dtype=bool)
        self._text[[id for id in range(vocab) if pieces[id] and id not in self._special]] = True

    def matcher(self, constraint: Constraint, prompt: Sequence[int] = ()) -> Matcher:
        """The state of a text that has not begun.

        `prompt`: what the decoder has read before. Where it holds no text, a tokenizer that takes a space off the
        beginning of a text takes it off this one's. Raises UserError where no text of this tokenizer's can be such.
        """
        from llguidance import LLMatcher

        inner = LLMatcher(self._inner, constraint.lark, log_level=0)
        if inner.is_error():
            raise UserError(f"the {constraint.kind} cannot be used: {_gist(inner.get_error())}")
        begins = bool(self.first_ids) and not any(self.tokenizer.pieces(prompt))
        matcher = Matcher(self, constraint.kind, inner, begins)
        matcher.allowed()
        return matcher

    def rows(self, bits: bytes, begins: bool) -> np.ndarray:
        """Which tokens of text llguidance's mask holds, bool [vocab]."""
        bools = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little").astype(bool)
        rows = self._row_of_first[: self.vocab] if begins else slice(self.vocab)
        return bools[rows] & self._text


class _Words:
    """What LLTokenizer asks of a tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokens: list[bytes], special: Iterable[int], eos: int):
        self.tokens, self.special_token_ids, self.eos_token_id = tokens, sorted(special), eos

    def __call__(self, text: str) -> list[int]:
        raise AssertionError("nothing is encoded: no token is forced")


class Matcher:
    """How far one text has come."""

    def __init__(self, constrainer: Constrainer, kind: str, inner: LLMatcher, begins: bool):
        self._constrainer, self._kind, self._inner, self._begins = constrainer, kind, inner, begins
        self._ids: list[int] = []
        self._ended = False
        self._allowed: Tensor | None = None

    def allowed(self) -> Bool[Tensor, " vocab"]:
        """Which tokens may come next, on the CPU; not to be written to.

        End tokens may where the text is complete. Raises UserError where none may: llguidance looks one token ahead,
        and what a grammar wants further on may be what the tokenizer cannot write.
        """
        assert not self._ended, "the text has ended"
        if self._allowed is None:
            self._allowed = torch.from_numpy(self._rows())
        return self._allowed

    def push(self, id: int) -> None:
        """The next token, which must be an allowed one."""
        assert self.allowed()[id], f"token {id} may not come next"
        self._ids.append(id)
        if id in self._constrainer.eos_ids:
            self._ended = True
            return
        first = self._constrainer.first_ids.get(id, id) if self._begins and len(self._ids) == 1 else id
        taken = self._inner.consume_token(first)
        assert taken, self._inner.get_error()
        self._allowed = None

    @property
    def done(self) -> bool:
        """Whether nothing but the end may follow, or it has come."""
        eos = list(self._constrainer.eos_ids)
        return self._ended or int(self.allowed().sum()) == int(self.allowed()[eos].sum())

    @property
    def complete(self) -> bool:
        """Whether the text is already what was asked for, be it that more may follow."""
        return self._ended or self._inner.is_accepting()

    def forced(self) -> bytes:
        """The bytes that must come next, whatever the model says; mostly none."""
        return b"" if self._ended else self._inner.compute_ff_bytes()

    def rollback(self, tokens: int) -> None:
        """Take back the last tokens, as speculative decoding does."""
        assert 0 <= tokens <= len(self._ids), f"{tokens} of {len(self._ids)} tokens cannot be taken back"
        if tokens == 0:
            return
        of_text = tokens - self._ended
        self._ended = False
        del self._ids[-tokens:]
        if of_text:
            taken_back = self._inner.rollback(of_text)
            assert taken_back, self._inner.get_error()
            self._allowed = None

    def copy(self) -> Matcher:
        """Another that is as far, and goes its own way."""
        copy = Matcher(self._constrainer, self._kind, self._inner.deep_copy(), self._begins)
        copy._ids, copy._ended, copy._allowed = list(self._ids), self._ended, self._allowed
        return copy

    def _rows(self) -> np.ndarray:
        constrainer, inner = self._constrainer, self._inner
        complete, rows = inner.is_accepting(), np.zeros(constrainer.vocab, dtype=bool)
        if not inner.is_stopped():
            rows = constrainer.rows(inner.compute_bitmask(), self._begins and not self._ids)
        if inner.is_error() and "NoExtension" not in (said := _gist(inner.get_error())):
            raise UserError(f"the {self._kind} is too much to follow: {said}; simplify it")
        rows[list(constrainer.eos_ids)] = complete
        if inner.is_error() or not rows.any():
            raise self._dead_end()
        return rows

    def _dead_end(self) -> UserError:
        written = self._constrainer.tokenizer.decode(self._ids)
        after = f"after {'…' * (len(written) > 40)}{written[-40:]!r}" if written else "at its beginning"
        return UserError(
            f"the {self._kind} cannot be kept {after}: no token of this tokenizer goes on as it demands; "
            "loosen it, or take a tokenizer that has every byte"
        )


def masked(
    logits: Float[Tensor, "*batch vocab"], allowed: Bool[Tensor, "*#batch vocab"]
) -> Float[Tensor, "*batch vocab"]:
    """The logits, -inf where a token is not allowed (so `sample.finite` is for those before it)."""
    return logits.masked_fill(~allowed.to(logits.device), -torch.inf)
