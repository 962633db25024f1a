"""Texts to ids, on all cores: by `tokenizers`; much text in byte-pair encoding by `fastokens`, ten times as fast."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import fastokens
import numpy as np
import tokenizers

from wenlu.base.errors import UserError
from wenlu.base.log import say

PART = 1 << 14
"""A longer text is read in parts of about so many characters, on all cores."""
WAVE = 1 << 20
"""Characters handed to a library at a time: it needs some hundred bytes a token while it works."""
OPENING = 50
"""Characters for each token of the vocabulary, which `tokenizers` reads in the time that `fastokens` takes to open."""
PROBE = (
    "It's the 1st of 2,048 tests; we'LL see: naïve Straße, Ελλάδα, Россия 42%!\r\n\r\n\t def f(x):  return x**2   \n"
    "红楼梦第一回：“甄士隐梦幻识通灵”……１２３４，東京タワー、한국어 텍스트。 عربى हिन्दी ไทย\u3000\u00a0\n \n"
    "👩🏽\u200d🚀🇨🇳e\u0301\u2581\x00\x1f\ufeff\U000e0001\U0003134a <|endoftext|><unk><0x41>[CLS] ſ's 'S \u0130''ve"
    "\n \n  \n         "
)
"""A text of many scripts: on it, and on all tokens, both libraries must agree before the fast one is believed."""
ANCHOR = re.compile(r"(?<![\\\[])[\^$]|\\[AzZbBG]")
"""What means other things in the two libraries' expressions: line ends, word borders."""

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
        self._fast: tuple[fastokens.Tokenizer | None, ...] = ()  # empty until it is asked for
        self._opening = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of every text, uint32 [tokens], not to be written to. A lone surrogate raises `UserError`."""
        parts: list[list[np.ndarray]] = [[] for _ in texts]
        for wave in self._waves(texts):
            for (index, _), ids in zip(wave, self._encoded([part for _, part in wave]), strict=True):
                parts[index].append(ids)
        found = [of_text[0] if len(of_text) == 1 else np.concatenate(of_text) for of_text in parts]
        for ids in found:
            ids.setflags(write=False)
        return found

    def _encoded(self, parts: list[str]) -> list[np.ndarray]:
        self._read += sum(map(len, parts))
        if self._read < self._worth or self.fast is None:
            found = self._library.encode_batch_fast(parts, add_special_tokens=False)
            return [np.array(encoding.ids, dtype=np.uint32) for encoding in found]
        return _all(self.fast, parts)

    @property
    def fast(self) -> fastokens.Tokenizer | None:
        """`fastokens` with this tokenizer; None where no pairs are merged, or, which is said, where it does not know
        the form or may give other ids."""
        with self._opening:
            if not self._fast:
                self._fast = (self._open(),)
        return self._fast[0]

    def _open(self) -> fastokens.Tokenizer | None:
        plan = self._library.to_str()
        read = json.loads(plan)
        if not read["model"].get("merges"):
            return None
        if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in read["added_tokens"]):
            return _say("added tokens that take spaces or want words of their own")
        if any(ANCHOR.search(expression) for expression in _expressions(read["pre_tokenizer"])):
            return _say("an expression that asks where a line or a word begins or ends")
        try:
            found = fastokens.Tokenizer.from_json_str(plan)
        except ValueError as error:
            return _say(" ".join(str(error).split()))
        vocab = self._library.get_vocab(with_added_tokens=True)
        texts = self._library.decode_batch([[id] for id in vocab.values()], skip_special_tokens=False)
        probes = [PROBE, " ".join(vocab), " ".join(texts), "\n".join(texts)]
        theirs = self._library.encode_batch_fast(probes, add_special_tokens=False)
        if [ids.tolist() for ids in _all(found, probes)] != [encoding.ids for encoding in theirs]:
            return _say("its ids differ")
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


def _expressions(step: Any) -> Iterator[str]:
    """All regular expressions within a plan's step."""
    if isinstance(step, dict):
        if isinstance(step.get("Regex"), str):
            yield step["Regex"]
        step = list(step.values())
    for part in step if isinstance(step, list) else ():
        yield from _expressions(part)


def _say(why: str) -> None:
    say(f"text is encoded by tokenizers, not by fastokens, which is faster: {why}", "yellow")


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
