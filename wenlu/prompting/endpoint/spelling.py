"""Where the tokens that an endpoint shows lie in the text that was sent, and whether they are of this text at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")
TORN = "\ufffd"
"""Shown for one to three bytes that are no whole character."""


def token_bytes(token: str) -> bytes | None:
    """What a token spells: its text, or bytes (`bytes:\\xe7` as OpenAI writes them, `<0xE7>` as Llama's vocabulary
    does). None where it is shown with U+FFFD, which may stand for any part of a character."""
    if token.startswith("bytes:") and _ESCAPE.search(token.encode()):
        return _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), token.removeprefix("bytes:").encode())
    if match := _BYTE.fullmatch(token):
        return bytes.fromhex(match[1])
    return None if TORN in token else token.encode()


def ends(tokens: Sequence[str], text: str) -> list[tuple[int, int]] | None:
    """The byte of the UTF-8 text at which each token ends: the least and the greatest that may be meant, mostly equal.

    None where the tokens do not spell the text, neither more nor less.
    """
    whole = text.encode()
    spelled = [token_bytes(token) for token in tokens]
    if None not in spelled:
        known = [piece or b"" for piece in spelled]
        return [(end, end) for end in accumulate(map(len, known))] if b"".join(known) == whole else None
    reached = [{0}]
    for token, piece in zip(tokens, spelled, strict=True):
        reached.append({end for start in reached[-1] for end in _after(start, token, piece, whole)})
    last = reached[-1] & {len(whole)}
    for number in range(len(tokens) - 1, -1, -1):
        reached[number + 1] = last
        token, piece = tokens[number], spelled[number]
        last = {start for start in reached[number] if _after(start, token, piece, whole) & last}
    return [(min(places), max(places)) for places in reached[1:]] if last else None


def first_beyond(ends: Sequence[tuple[int, int]], place: int) -> int | None:
    """Number of the first token that begins at this byte or reaches beyond it; None where that is not known."""
    start = (0, 0)
    for number, end in enumerate(ends):
        if start[0] >= place or end[0] > place:
            return number
        if start[1] >= place or end[1] > place:
            return None
        start = end
    return len(ends)


def _after(start: int, token: str, piece: bytes | None, whole: bytes) -> set[int]:
    """Where a token may end that begins at a byte of the text."""
    if piece is not None:
        return {start + len(piece)} if whole.startswith(piece, start) else set()
    places = {start}
    for number, part in enumerate(token.split(TORN)):
        if number:
            places = {
                place + size for place in places for size in (1, 2, 3) if _within(whole[place : place + size], size)
            }
        places = {place + len(part.encode()) for place in places if whole.startswith(part.encode(), place)}
    return places


def _within(part: bytes, size: int) -> bool:
    """Whether all bytes are there and belong to characters beyond ASCII."""
    return len(part) == size and min(part) >= 0x80
