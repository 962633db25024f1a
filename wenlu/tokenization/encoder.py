"""Texts to ids, on all cores: by `tokenizers`; much text in byte-pair encoding by `fastokens`, ten times as fast."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise

import fastokens
import numpy as np
import tokenizers

from wenlu.base.errors import UserError
from wenlu.base.log import console

PART = 1 << 14
"""A longer text is read in parts of about so many characters, on all cores."""
WAVE = 1 << 20
"""Characters handed to a library at a time: it needs some hundred bytes a token while it works."""
OPENING = 32
"""Characters for each token of the vocabulary, which `tokenizers` reads in the time that `fastokens` takes to open."""
PROBE = (
    "It's the 1st of 2,048 tests; we'LL see: naïve Straße, Ελλάδα, Россия 42%!\r\n\r\n\t def f(x):  return x**2   \n"
    "红楼梦第一回：“甄士隐梦幻识通灵”……１２３４，東京タワー、한국어 텍스트。 عربى हिन्दी ไทย\u3000\u00a0\n \n"
    "👩🏽\u200d🚀🇨🇳e\u0301\u2581\x00\x1f\ufeff\U000e0001\U0003134a <|endoftext|><unk><0x41>[CLS] ſ's 'S \u0130''ve"
    + " "
    * 9
)
"""A text of many scripts: on it, and on the vocabulary, both libraries must agree before the fast one is believed."""

Cut = Callable[[str, int], Iterator[str]]

_BOUNDARY = re.compile(r"\S(?=[ \t\r\n])|[\u4e00-\u9fa5](?=[，。！？；：、])")


class Encoder:
    """The ids of texts; special tokens written in them are text.

    `tokenizers` is what says the ids. `fastokens` gives the same ones for byte-pair encoding, but takes as long to
    open as its vocabulary is large: it is opened once as much text has come as `tokenizers` reads in that time.
    """

    def __init__(self, library: tokenizers.Tokenizer, cut: Cut):
        """`cut` parts a text into what is encoded one by one as the whole is."""
        self._library, self._cut = library, cut
        self._read, self._worth = 0, OPENING * library.get_vocab_size()

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of every text, uint32 [tokens]. A lone surrogate raises `UserError`."""
        parts: list[list[np.ndarray]] = [[] for _ in texts]
        for wave in self._waves(texts):
            for (index, _), ids in zip(wave, self._encoded([part for _, part in wave]), strict=True):
                parts[index].append(ids)
        return [of_text[0] if len(of_text) == 1 else np.concatenate(of_text) for of_text in parts]

    def _encoded(self, parts: list[str]) -> list[np.ndarray]:
        self._read += sum(map(len, parts))
        if self._read < self._worth or self.fast is None:
            found = self._library.encode_batch_fast(parts, add_special_tokens=False)
            return [np.array(encoding.ids, dtype=np.uint32) for encoding in found]
        return _all(self.fast, parts)

    @cached_property
    def fast(self) -> fastokens.Tokenizer | None:
        """`fastokens` with this tokenizer; None where no pairs are merged, or, which is said, where it does not know
        the form or its ids are other ones."""
        plan = self._library.to_str()
        if not json.loads(plan)["model"].get("merges"):
            return None
        try:
            found = fastokens.Tokenizer.from_json_str(plan)
        except ValueError as error:
            _say(str(error))
            return None
        probe = " ".join([PROBE, *self._library.get_vocab(with_added_tokens=True)])
        if _all(found, [probe])[0].tolist() != self._library.encode(probe, add_special_tokens=False).ids:
            _say("its ids differ")
            return None
        return found

    def _waves(self, texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
        """(index of the text, part of it) in order, in lists of about `WAVE` characters."""
        wave, size = [], 0
        for index, text in enumerate(texts):
            require_unicode(text)
            for part in self._cut(text, PART):
                wave.append((index, part))
                size += len(part)
                if size >= WAVE:
                    yield wave
                    wave, size = [], 0
        if wave:
            yield wave


def _all(fast: fastokens.Tokenizer, texts: list[str]) -> list[np.ndarray]:
    ids, ends = fast.encode_batch_flat(texts, False, True)
    ids, ends = np.frombuffer(ids, "<u4"), np.frombuffer(ends, "<u8").tolist()
    return [ids[start:end] for start, end in pairwise(ends)]


def _say(why: str) -> None:
    console.print(f"text is encoded by tokenizers, not by fastokens, which is faster: {why}", markup=False)


def require_unicode(text: str) -> None:
    """Refuse a lone surrogate, which no valid Unicode text holds and UTF-8 cannot write."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise UserError(
            f"the text is not valid Unicode: a lone surrogate U+{code:04X} at character {error.start}; "
            "decode it with errors='replace', or remove that character"
        ) from None


def cut_at_spaces(text: str, size: int) -> Iterator[str]:
    """Parts of about `size` characters that byte BPE or Unigram reads one by one as it reads the whole.

    GPT-2's expression and ours look only forward, and no token goes on into white space, or from ideograph to stop.
    """
    start = 0
    while len(text) - start > size and (match := _BOUNDARY.search(text, start + size - 1)):
        yield text[start : match.end()]
        start = match.end()
    yield text[start:]


def cut_anywhere(text: str, size: int) -> Iterator[str]:
    """Parts of `size` characters, for tokens that are single characters or bytes."""
    for start in range(0, max(len(text), 1), size):
        yield text[start : start + size]


def whole(text: str, size: int) -> Iterator[str]:
    """The text as it is, for tokenizers of which it is not known where they may be cut."""
    yield text
