"""Texts in which some stretches are a form (special tokens are read as such) and others what somebody wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence

from wenlu.base.errors import UserError
from wenlu.tokenization.encoder import require_unicode
from wenlu.tokenization.tokenizer import Tokenizer

Span = tuple[int, int]
"""Characters [start, end)."""


class FormEncoder:
    """Encodes whole texts, as Transformers does, but that special tokens written by somebody stay text."""

    def __init__(self, tokenizer: Tokenizer):
        self._text, self._form = tokenizer.copy_of_library(), tokenizer.copy_of_library()
        self._form.encode_special_tokens = False
        names = sorted((tokenizer.token_bytes(id).decode() for id in tokenizer.special_ids), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names)) or r"(?!)")

    def encode(self, text: str, written: Sequence[Span]) -> tuple[list[int], list[Span]]:
        """The ids of a text, and the characters that each stands for.

        `written`: the stretches, in order and apart, in which special tokens are text. Raises `UserError` where one is
        written there and the tokenizer treats beginnings of texts apart, so that it cannot be kept as text.
        """
        require_unicode(text)
        marks = self.special(text, written)
        if marks == self.special(text, ()):
            found = self._form.encode(text, add_special_tokens=False)
            return found.ids, found.offsets
        ids, spans = self._between(text, marks)
        calm = list(text)
        for start, end in written:
            calm[start:end] = "x" * (end - start)
        calm = "".join(calm)
        if self._between(calm, marks)[0] != self._form.encode(calm, add_special_tokens=False).ids:
            raise UserError(
                "a special token is written in a text, and this tokenizer cannot keep it as text: remove it"
            )
        return ids, spans

    def special(self, text: str, written: Sequence[Span]) -> list[Span]:
        """Where special tokens stand in a text outside the stretches `written`."""
        borders = [0, *(place for stretch in written for place in stretch), len(text)]
        outside = zip(borders[::2], borders[1::2])
        return [match.span() for start, end in outside for match in self._special.finditer(text, start, end)]

    def _between(self, text: str, marks: Sequence[Span]) -> tuple[list[int], list[Span]]:
        """Ids and characters, with special tokens only at `marks`."""
        ids, spans, place = [], [], 0
        for start, end in [*marks, (len(text), len(text))]:
            found = self._text.encode(text[place:start], add_special_tokens=False)
            ids += found.ids
            spans += [(first + place, last + place) for first, last in found.offsets]
            if end > start:
                ids.append(self._text.token_to_id(text[start:end]))
                spans.append((start, end))
            place = end
        return ids, spans
