"""Whether a text is one that a model was trained on: a few stretches of it are looked for among the run's tokens."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import numpy as np

from wenlu.data.shards import Data
from wenlu.tokenization.tokenizer import Tokenizer

STRETCHES = 16
"""Looked for, evenly chosen over the texts."""
CHARACTERS, TOKENS = 300, 24
"""How much is read for a stretch, and how much of its middle, whose tokens do not depend on where it was cut out."""
MOST_BYTES = 1 << 30
"""Of training tokens that are searched; in more, nothing is looked for."""


def seen(texts: Sequence[str], tokenizer: Tokenizer, data: Data) -> tuple[int, int] | None:
    """How many of how many stretches stand word for word in the training text; None where that is too large."""
    shards = sorted((data.folder / "train").glob("*.bin"))
    if sum(shard.stat().st_size for shard in shards) > MOST_BYTES:
        return None
    kind = np.dtype(data.description["dtype"]).newbyteorder("<")
    parts = [np.asarray(ids, kind).tobytes() for ids in _stretches(texts, tokenizer)]
    found: set[int] = set()
    for shard in shards:
        with shard.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as tokens:
            found |= {n for n, part in enumerate(parts) if n not in found and _stands_in(part, tokens, kind.itemsize)}
    return len(found), len(parts)


def _stretches(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    ends = np.cumsum([len(text) for text in texts])
    stretches = []
    for place in np.linspace(0, ends[-1], STRETCHES, endpoint=False, dtype=int):
        number = int(np.searchsorted(ends, place, side="right"))
        begin = int(place - ends[number]) + len(texts[number])
        ids = tokenizer.encode(texts[number][begin : begin + CHARACTERS])
        middle = ids[len(ids) // 4 :][:TOKENS]
        if len(middle) == TOKENS and len(ids) >= 2 * TOKENS:
            stretches.append(middle)
    return stretches


def _stands_in(part: bytes, tokens: mmap.mmap, size: int) -> bool:
    """Whether a part begins where a token does."""
    place = tokens.find(part)
    while place >= 0 and place % size:
        place = tokens.find(part, place + 1)
    return place >= 0
