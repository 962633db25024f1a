"""Long texts in pieces, cut where no token of byte BPE could span, so that memory is bounded."""

import re
from collections.abc import Iterable, Iterator

CHUNK = 1 << 20
"""Bytes read at a time, and about the characters of a piece."""
LONGEST = 1 << 23
"""Characters after which a text without any fitting place is cut all the same."""

# Line ends first, which are few, then what stands before them: to look at every character takes long.
_AFTER_WORD = re.compile(r"\n(?<=[^\W_]\n)")
_AFTER_SIGN = re.compile(r"\n(?<=\S\n)")
_BEFORE_SPACE = re.compile(r"\S(?=\s)|[\u4e00-\u9fa5](?=[，。！？；：、])")


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
    Past `LONGEST` characters without a line end: before white space, or between an ideograph and Chinese punctuation,
    which no token of either spans; and where there is none, anywhere.
    """
    begin, length = start + size, len(text) - start
    some = text.find("\n", begin) >= 0  # told faster than by an expression, in lines without end
    match = _AFTER_WORD.search(text, begin) if some else None
    if match is None and some and length > 2 * size:
        match = _AFTER_SIGN.search(text, begin)
    if match is not None:
        return match.start()
    if length <= LONGEST:
        return 0
    match = _BEFORE_SPACE.search(text, begin - 1)
    return match.end() if match else start + LONGEST
