"""Lines at the ends of many documents, or again and again in one: boilerplate and adverts, found in bounded memory."""

import re
from collections.abc import Callable
from typing import Any

LEAST_WIDTH = 24
"""Columns below which a line is let alone (an ideograph is two wide): names in plays, headings, lines of verse."""
DOCUMENTS = 6
"""Documents from which a line is boilerplate."""
TIMES = 8
"""Occurrences in one document from which a line is an advert, where they lie far apart."""
APART = 1500
"""Characters between them on average, at least; refrains stand closer."""
MOST = 1 << 18
"""Lines remembered at a time."""


_CODE = re.compile(r" = |\(\)|[{};]$|^(?:>>>|\.\.\.|//|/\*|\* |import |from |return )")


class RepeatedLines:
    """Counts lines over a first reading, then says which are to go.

    Counting is lossy where more than `MOST` different lines come (after Manku and Motwani 2002): the rarest are then
    forgotten, down to half of that. So a line is found that comes often enough (in 6 documents, or 8 times in one)
    while `MOST` / 2 lines come that are new, unless as many others are as frequent.
    """

    def __init__(self):
        self._documents: dict[int, int] = {}
        self._here: dict[int, list[int]] = {}
        self._position = 0
        self._within: dict[int, set[int]] = {}
        self._across: set[int] | None = None

    def add(self, text: str) -> None:
        """A part of the document at hand, ending with a line."""
        here, position = self._here, self._position
        for line in text.split("\n"):
            if len(line) >= LEAST_WIDTH // 2 and (key := _key(line)) is not None:
                if key in here:
                    here[key][0] += 1
                    here[key][2] = position
                else:
                    here[key] = [1, position, position]
            position += len(line) + 1
        self._position = position
        if len(here) > MOST:
            self._here = _without_rarest(here, lambda found: found[0])

    def end(self, document: int) -> None:
        """The document at hand ends; its number is `document`."""
        for key, (times, first, last) in self._here.items():
            if times >= TIMES and last - first >= APART * (times - 1):
                self._within.setdefault(document, set()).add(key)
            self._documents[key] = self._documents.get(key, 0) + 1
        if len(self._documents) > MOST:
            self._documents = _without_rarest(self._documents, lambda count: count)
        self._here, self._position = {}, 0

    def in_document(self, document: int) -> set[int]:
        """Keys of the adverts in a document, to be taken out wherever they stand."""
        return self._within.get(document, set())

    def at_ends(self) -> set[int]:
        """Keys of the lines of many documents, to be taken out where nothing else follows them: at the beginning of a
        document such a line may be a question or an instruction, and what follows its answer."""
        if self._across is None:
            self._across = {key for key, count in self._documents.items() if count >= DOCUMENTS}
            self._documents = {}
        return self._across


def _without_rarest(table: dict[int, Any], count: Callable[[Any], int]) -> dict[int, Any]:
    """A table that is full, without its lowest counts: at most half as much as it may hold is left."""
    floor = sorted(map(count, table.values()), reverse=True)[MOST // 2]
    return {key: found for key, found in table.items() if count(found) > floor}


def without(text: str, keys: set[int], at_end: set[int] | None = None) -> str:
    """A text without the lines of `keys`, and, at its end, those of `at_end`."""
    if not keys and not at_end:
        return text
    lines = text.split("\n")
    kept = [line for line in lines if not _goes(line, keys)] if keys else lines
    tail = len(kept)
    while at_end and tail and (not kept[tail - 1].strip() or _goes(kept[tail - 1], at_end)):
        tail -= 1
    if any(line.strip() for line in kept[tail:]) and tail:
        kept = kept[:tail] + ([""] if text.endswith("\n") else [])
    return "\n".join(kept) if len(kept) < len(lines) else text


def _goes(line: str, keys: set[int]) -> bool:
    """Whether a line is one of these, and boilerplate: no program text, no speaker's name with a colon."""
    if len(line) < LEAST_WIDTH // 2 or _key(line) not in keys:
        return False
    line = line.strip()
    return not line.endswith((":", "：")) and _CODE.search(line) is None


def _key(line: str) -> int | None:
    """What a line is remembered by; None for narrow ones."""
    line = line.strip()
    if len(line) < LEAST_WIDTH and (line.isascii() or len(line) + sum(c >= "\u2e80" for c in line) < LEAST_WIDTH):
        return None
    return hash(line)
