"""Long texts in pieces, cut where no token of byte BPE could span, so that memory is bounded."""

import re
from collections.abc import Iterable, Iterator

CHUNK = 1 << 20
"""Bytes read at a time, and about the characters of a piece."""
LONGEST = 1 << 23
"""Characters after which a text without any fitting place is cut all the same."""

_AFTER_WORD = re.compile(r"[^\W_](?=\n)")
_AFTER_SIGN = re.compile(r"\S(?=\n)")
_BEFORE_SPACE = re.compile(r"\S(?=\s)")


def in_pieces(parts: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """(piece, whether it is the last) of one document that comes in parts of any length; nothing where it is empty."""
    waiting, some = "", False
    for part in parts:
        waiting += part
        start = 0
        while len(waiting) - start > CHUNK and (cut := cut_after(waiting, CHUNK, start)):
            yield waiting[start:cut], False
            start, some = cut, True
        waiting = waiting[start:] if start else waiting
    if waiting or some:
        yield waiting, True


def cut_after(text: str, size: int, start: int = 0) -> int:
    """Where to end a piece of `size` characters from `start` on, or a little more: before a line end, since no token
    spans it.

    The line should end with a letter or digit, which parts tokens under GPT-2's and Qwen2's expressions alike; where
    none does (Chinese ends lines with a full stop), any line will do, which parts them under GPT-2's. 0: nowhere yet.
    Past `LONGEST` characters without a line end: before white space, and where there is none, anywhere.
    """
    begin, length = start + size - 1, len(text) - start
    match = None
    if text.find("\n", begin) >= 0:
        match = _AFTER_WORD.search(text, begin)
        if match is None and length > 2 * size:
            match = _AFTER_SIGN.search(text, begin)
    if match is None and length > LONGEST:
        match = _BEFORE_SPACE.search(text, begin)
        return match.end() if match else start + LONGEST
    return match.end() if match else 0
