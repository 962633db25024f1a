"""How a text is cut into words before tokens are made of them, and how often each occurs."""

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache

EXPRESSION = r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"
"""GPT-2's expression (its encoder.py), but with vowel signs and accents kept beside their letters."""

_SPACES = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's white space, which is what the library's expressions take for it; Python's has four separators more."""


@lru_cache
def _classes() -> dict[str, str]:
    """Letters, marks and numbers as ranges of a character class: Python's expressions have no names for them."""
    classes, last = {"L": "", "M": "", "N": ""}, ("", 0)
    for code in range(sys.maxunicode + 2):
        category = unicodedata.category(chr(code))[0] if code <= sys.maxunicode else ""
        if category != last[0]:
            if last[0] in classes:
                classes[last[0]] += rf"\U{last[1]:08x}-\U{code - 1:08x}"
            last = (category, code)
    return classes


@lru_cache
def expression(marks: bool) -> re.Pattern[str]:
    """`EXPRESSION`, or (marks=False) GPT-2's own, for Python, which finds the library's words in a third of the time.

    Of a character that only one of their Unicode tables knows, the words may differ: then learning counts it otherwise
    than encoding cuts it, and nothing else.
    """
    classes = _classes()
    letters, numbers = classes["L"] + classes["M"] * marks, classes["N"]
    rest = f"[^{_SPACES}{letters}{numbers}]"
    return re.compile(
        rf"'s|'t|'re|'ve|'m|'ll|'d| ?[{letters}]+| ?[{numbers}]+| ?{rest}+|[{_SPACES}]+(?![^{_SPACES}])|[{_SPACES}]+"
    )


def count_words(texts: Iterable[str], longest: int, *, marks: bool) -> Counter[str]:
    """How often each word occurs; one of more than `longest` characters counts as several."""
    find = expression(marks).findall
    whole: Counter[str] = Counter()
    for text in texts:
        whole.update(find(text))
    words: Counter[str] = Counter()
    for word, count in whole.items():
        for part in _parts(word, longest):
            words[part] += count
    return words


def _parts(word: str, longest: int) -> Iterator[str]:
    for start in range(0, len(word), longest):
        yield word[start : start + longest]
