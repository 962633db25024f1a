"""Rules that drop whole documents: judged by figures that mean the same in every script."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from wenlu.data.cleaning.units import ngrams

LEAST_LETTERS = 2
"""Letters or ideographs below which a text is no text."""
LEAST_SHARE = 0.3
"""Of letters among what is no white space: prose has 0.9, program text 0.6 and more."""
LONG_ENOUGH = 1000
"""Visible characters from which repetition tells something; below are songs, lists and poems with refrains."""
REPEATED_LINES = 0.5
REPEATED_UNITS = 0.4
NGRAM = 10
PLACEHOLDER_LENGTH = 1500
"""Visible characters up to which a text that asks for JavaScript is taken to be nothing else."""


@dataclass
class Measures:
    """Figures of a document, added up over its parts."""

    visible: int = 0
    """Characters that are no white space."""
    letters: int = 0
    line_characters: int = 0
    repeated_line_characters: int = 0
    """In lines that stood before in the same part."""
    ngrams: int = 0
    repeated_ngrams: int = 0
    """10-grams of units that stood before in the same part."""
    placeholders: int = 0

    def add(self, text: str, numbers: np.ndarray) -> None:
        """A part, and the numbers of its units (`units.unit_numbers`)."""
        counts = character_counts(text)
        letters = sum(count for character, count in counts.items() if _is_letter(character))
        self.letters += letters
        self.visible += sum(count for character, count in counts.items() if not character.isspace())
        if len(text) >= LONG_ENOUGH:
            self._repetition(text, numbers)
        if len(text) < 2 * PLACEHOLDER_LENGTH and _is_placeholder(text):
            self.placeholders += 1

    def _repetition(self, text: str, numbers: np.ndarray) -> None:
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        sizes = sum(map(len, lines))
        self.line_characters += sizes
        self.repeated_line_characters += sizes - sum(map(len, set(lines)))
        grams = ngrams(numbers, NGRAM)
        if len(grams) > 1 << 13:  # of many, those whose number ends in 000: an eighth, with all their repetitions
            grams = grams[grams & np.uint64(7) == 0]
        grams.sort()
        self.ngrams += len(grams)
        self.repeated_ngrams += int(np.count_nonzero(grams[1:] == grams[:-1]))


def character_counts(text: str) -> dict[str, int]:
    """How often each character occurs; by way of numpy where that is faster."""
    if len(text) < (256 if text.isascii() else 4096):
        return Counter(text)
    if text.isascii():
        found = np.bincount(np.frombuffer(text.encode(), dtype=np.uint8), minlength=128)
        return {chr(code): int(found[code]) for code in np.flatnonzero(found)}
    found = np.bincount(np.frombuffer(text.encode("utf-16-le"), dtype=np.uint16), minlength=1 << 16)
    beyond = Counter("".join(_BEYOND.findall(text))) if found[0xD800:0xDC00].any() else {}
    found[0xD800:0xE000] = 0
    return {chr(code): int(found[code]) for code in np.flatnonzero(found)} | beyond


_BEYOND = re.compile("[\U00010000-\U0010ffff]+")
"""Characters that are two numbers each in UTF-16."""


@lru_cache(maxsize=1 << 16)
def _is_letter(character: str) -> bool:
    """Letters, ideographs, and the marks that letters of Indic scripts and Thai carry."""
    return character.isalpha() or (character > "\u02ff" and _MARK.match(character) is not None)


_MARK = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u109f\u1780-\u17d3]")
_PLACEHOLDER_SIGNS = (
    *("lorem ipsum", "javascript", "cookies", "not found", "placeholder page", "for sale"),
    *("页面不存在", "域名"),
)
_PLACEHOLDER = re.compile(
    r"lorem ipsum dolor|(?:enable|activate|turn on|requires?) (?:javascript|cookies)"
    r"|javascript (?:is|must be|seems to be) (?:disabled|required|enabled|turned off)"
    r"|(?:404|page) (?:page )?not found|this is a placeholder page|this domain (?:name )?(?:is|may be) for sale"
    r"|(?:请|需要)(?:启用|开启|打开)\s*javascript|(?:您|你)所?(?:访问|请求|查找)的页面不存在"
    r"|[该此本]域名(?:已|正在)?(?:出售|转让|过期)",
)


def _is_placeholder(text: str) -> bool:
    text = text.lower()
    return any(sign in text for sign in _PLACEHOLDER_SIGNS) and _PLACEHOLDER.search(text) is not None


def short(found: Measures) -> bool:
    """Fewer than 2 letters or ideographs."""
    return found.letters < LEAST_LETTERS


def symbols(found: Measures) -> bool:
    """Less than 30 % of what is visible are letters or ideographs."""
    return found.letters < LEAST_SHARE * found.visible


def repetitive(found: Measures) -> bool:
    """Of 1,000 characters or more, over half lie in repeated lines, or over 40 % of 10-grams of units are repeated.

    After the repetition rules of Gopher's MassiveText (Rae et al. 2021, appendix A.1.1: 20 % of characters in repeated
    lines, 10 % in repeated 10-grams of words), with wider limits, since these also stand for verse and plays.
    """
    return found.repeated_line_characters > REPEATED_LINES * max(
        1, found.line_characters
    ) or found.repeated_ngrams > REPEATED_UNITS * max(1, found.ngrams)


def placeholder(found: Measures) -> bool:
    """A short page that asks for JavaScript, is a parked domain, an error, or lorem ipsum (after C4, Raffel 2020)."""
    return found.placeholders > 0 and found.visible < PLACEHOLDER_LENGTH


DOCUMENT_RULES: dict[str, Callable[[Measures], bool]] = {
    "short": short,
    "symbols": symbols,
    "placeholder": placeholder,
    "repetitive": repetitive,
}
"""Name → whether a document of these figures is dropped; the first that says so counts."""
