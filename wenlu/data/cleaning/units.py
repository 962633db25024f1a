"""Texts as sequences of units, and their n-grams as numbers: what likeness and overlap of texts are counted in.

A unit is a word of a script that is written with spaces, or a single character of one that is not (Chinese, Japanese,
Thai and its neighbours), in lower case; punctuation and white space are no units.
"""

import re
from functools import lru_cache

import numpy as np

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
BLOCK = 1 << 18
"""Characters numbered at a time."""

_SINGLE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00010000-\U0010ffff"
)
_UNIT = re.compile(rf"[{_SINGLE}]|[^\W_{_SINGLE}]+")


def units(text: str) -> list[str]:
    """The units of a text, in order."""
    return _UNIT.findall(text.lower())


def unit_numbers(text: str) -> np.ndarray:
    """A number for every unit of a text, the same in every process; uint64 [units]."""
    text = text.lower()
    if len(text) <= BLOCK:
        return _numbers(text)
    parts, start = [], 0
    while start < len(text):
        end = start + BLOCK
        end = end if end >= len(text) else max(text.rfind("\n", start, end), text.rfind(" ", start, end)) + 1 or end
        parts.append(_numbers(text[start:end]))
        start = end
    return np.concatenate(parts)


def _numbers(text: str) -> np.ndarray:
    """Each unit as a polynomial over its UTF-16 codes, modulo 2^64: prefix sums over the powers of an odd number."""
    if text.isascii():
        codes = np.frombuffer(text.encode(), dtype=np.uint8)
    else:
        codes = np.frombuffer(text.encode("utf-16-le"), dtype=np.uint16)
    kinds = _kinds()[codes]
    begins = kinds == 2
    begins[:1] |= kinds[:1] == 1
    begins[1:] |= (kinds[1:] == 1) & (kinds[:-1] != 1)
    starts = np.flatnonzero(begins)
    if not len(starts):
        return np.empty(0, dtype=np.uint64)
    powers, inverses = _powers()
    wanted = codes.astype(np.uint64) * (kinds > 0)
    sums = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum(wanted * powers[: len(codes)], out=sums[1:])
    numbers = sums[starts]
    numbers[:-1] = numbers[1:] - numbers[:-1]  # between a unit's end and the next one's start all codes are 0
    numbers[-1:] = sums[-1:] - numbers[-1:]
    numbers *= inverses[starts]
    return numbers ^ (numbers >> np.uint64(31))


@lru_cache(maxsize=1)
def _kinds() -> np.ndarray:
    """For every UTF-16 code: 0 no unit, 1 part of a word, 2 a unit by itself; uint8 [65536]."""
    single = re.compile(f"[{_SINGLE}]")
    kinds = [2 if single.match(chr(code)) else int(chr(code).isalnum()) for code in range(1 << 16)]
    kinds[0xDC00:0xE000] = [2] * 0x400  # the second half of a character beyond 65,536; the first is none
    return np.array(kinds, dtype=np.uint8)


@lru_cache(maxsize=1)
def _powers() -> tuple[np.ndarray, np.ndarray]:
    """The powers of an odd number modulo 2^64, and those of its inverse; uint64 [2 * BLOCK] each."""
    base = 0xD1342543DE82EF95
    both = (base, pow(base, -1, 1 << 64))
    runs = [np.full(2 * BLOCK, number, dtype=np.uint64) for number in both]
    for run in runs:
        run[0] = 1
    return tuple(np.cumprod(run, dtype=np.uint64) for run in runs)


def ngrams(numbers: np.ndarray, n: int) -> np.ndarray:
    """A number for every n-gram of units; uint64 [max(0, units - n + 1)]."""
    count = len(numbers) - n + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    mixed = np.zeros(count, dtype=np.uint64)
    for place in range(n):
        mixed = (mixed ^ numbers[place : place + count]) * MULTIPLIER
        mixed ^= mixed >> np.uint64(29)
    return mixed
