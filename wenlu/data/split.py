"""Which text is held out: documents by their hash, or, where they are few, the last part of the text."""

import bisect
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from dataclasses import dataclass, field
from typing import Literal

from wenlu.base.errors import UserError
from wenlu.base.log import counted
from wenlu.data.reading.sources import Piece

FEW_DOCUMENTS = 20
LONGEST_TOKEN = 64
"""Characters, more than any tokenizer's tokens have on an average: how far back the gap is looked for."""

Side = Literal["train", "validation", "gap"]


@dataclass
class Documents:
    """What a first reading learns: a digest and a length for every document."""

    digests: list[bytes] = field(default_factory=list)
    characters: MutableSequence[int] = field(default_factory=list)
    bytes: int = 0
    groups: list[bytes] = field(default_factory=list)
    """What near-duplicates have in common: the smallest digest among them, those that were dropped too; empty: nothing
    but digests is known."""
    alike: list[bytes] = field(default_factory=list)
    """The same, by a comparison of what is kept, as it is kept: a split is checked by this, and not made by it."""

    @property
    def keys(self) -> list[bytes]:
        """By what each document's side is chosen."""
        return self.groups or self.digests

    @property
    def likenesses(self) -> list[bytes]:
        """What documents have in common that are the same, or nearly."""
        return self.alike or self.digests

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> "Documents":
        documents, digest, length = cls(), hashlib.sha256(), 0
        for piece in pieces:
            raw = piece.text.encode()
            digest.update(raw)
            documents.bytes += len(raw)
            length += len(piece.text)
            if piece.last:
                documents.digests.append(digest.digest()[:16])
                documents.characters.append(length)
                digest, length = hashlib.sha256(), 0
        return documents

    @property
    def duplicates(self) -> int:
        """Documents that are the same as an earlier one."""
        return len(self.digests) - len(set(self.digests))


class Split:
    """The side of every stretch of text.

    Documents go by their hash, so that the same text always lies on the same side. Fewer than 20 documents: the last
    `fraction` of all characters is held out, from a paragraph's beginning on, with a gap of `gap` characters before it
    (or of so many tokens, by `leave_out`) that is in neither part, at most half as long as what is held out.
    """

    def __init__(self, documents: Documents, fraction: float, gap: int = 0):
        self._documents, self._fraction = documents, fraction
        self.by_hash = len(documents.digests) >= FEW_DOCUMENTS
        self._total = sum(documents.characters)
        self._target = self._total - round(fraction * self._total)
        self._cut: int | None = None
        self._leave_out(gap)
        if fraction and self.by_hash:
            self._refuse_empty()

    def leave_out(self, tokens: int, count: Callable[[str], int], pieces: Iterable[Piece]) -> None:
        """Make the gap so wide that it holds this many tokens, of which `count` tells how many a text has."""
        if self.by_hash or not self._fraction or not tokens:
            return
        before = ""
        for side, piece in self.parts(pieces):
            if side == "validation":
                break
            before = (before + piece.text)[-LONGEST_TOKEN * tokens :]
        self._leave_out(width_of(before, tokens, count) - ((self._cut or self._target) - self._target))

    def _leave_out(self, gap: int) -> None:
        self._gap = max(0, min(gap, (self._total - self._target) // 2))
        if self._fraction and not self.by_hash and not self._gap < self._target < self._total:
            few = f"{counted(self._total, 'character')} {'is' if self._total == 1 else 'are'} too few"
            raise UserError(f"{few} to hold {100 * self._fraction:g}% of them out: give more text, or --validation 0")

    def _refuse_empty(self) -> None:
        places = sorted({place_of(key) for key in self._documents.keys})
        if len(places) < 2:
            raise UserError("all documents are the same: none can be held out; give more text, or --validation 0")
        if places[0] < self._fraction <= places[-1]:
            return
        which, way = ("none", "raise") if self._fraction <= places[0] else ("all", "lower")
        least, most = math.ceil(places[0] * 1000 + 1) / 1000, math.floor(places[-1] * 1000) / 1000
        value = min(least, most) if which == "none" else most
        raise UserError(
            f"of {len(self._documents.digests):,} documents {which} would be held out by --validation "
            f"{self._fraction:g}: {way} it (--validation {value:g} does), or set it to 0"
        )

    @property
    def held_out(self) -> int:
        """Documents that lie at least partly on the held-out side."""
        return sum(self._held_out())

    @property
    def overlap(self) -> int:
        """Those of them that lie, the same or nearly, also on the training side."""
        found, held_out = self._documents.likenesses, self._held_out()
        before = {likeness for likeness, held in zip(found, held_out) if not held}
        return sum(held and likeness in before for likeness, held in zip(found, held_out))

    def _held_out(self) -> list[bool]:
        if not self._fraction:
            return []
        if self.by_hash:
            return [self._side(key) == "validation" for key in self._documents.keys]
        return [end > self._target for end in itertools.accumulate(self._documents.characters)]

    def parts(self, pieces: Iterable[Piece]) -> Iterator[tuple[Side, Piece]]:
        """The pieces, cut where the sides change. `last` marks the last piece of a document on its side."""
        position, keys = 0, self._documents.keys
        for piece in pieces:
            if not self._fraction:
                yield "train", piece
            elif self.by_hash:
                if piece.document >= len(self._documents.digests):
                    raise UserError("the text grew while it was read: wait until nothing writes to it, and try again")
                yield self._side(keys[piece.document]), piece
            else:
                yield from self._cut_piece(piece, position)
                position += len(piece.text)

    def _side(self, key: bytes) -> Side:
        return "validation" if place_of(key) < self._fraction else "train"

    def _cut_piece(self, piece: Piece, start: int) -> Iterator[tuple[Side, Piece]]:
        end = start + len(piece.text)
        if self._cut is None and end > self._target:
            self._cut = start + paragraph_at(piece.text, max(0, self._target - start))
        gap_end = end if self._cut is None else max(start, min(end, self._cut))
        gap_start = min(gap_end, max(start, self._target - self._gap))
        borders = [start, gap_start, gap_end, end]
        sides: tuple[Side, ...] = ("train", "gap", "validation")
        stretches = [(s, a, b) for s, a, b in zip(sides, borders, borders[1:]) if b > a]
        for index, (side, a, b) in enumerate(stretches):
            ends = piece.last or index < len(stretches) - 1 or (side == "train" and b == self._target - self._gap)
            yield side, Piece(piece.document, piece.text[a - start : b - start], ends)


def place_of(digest: bytes) -> float:
    """Where a digest of at least eight bytes lies in [0, 1)."""
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def width_of(text: str, tokens: int, count: Callable[[str], int]) -> int:
    """How many characters at the end of a text hold so many tokens; all of them where it has fewer."""
    width = 1
    while width < len(text) and count(text[-width:]) < tokens:
        width *= 2
    found = range(min(width, len(text)))
    return bisect.bisect_left(found, tokens, width // 2, key=lambda width: count(text[len(text) - width :]))


def paragraph_at(text: str, place: int) -> int:
    """The first beginning of a paragraph at or after `place`; else of a line, else of a word, else `place`."""
    for mark in ("\n\n", "\n", " "):
        found = text.find(mark, max(0, place - len(mark)))
        if 0 <= found < len(text) - len(mark) and found - place < max(2000, (len(text) - place) // 2):
            found += len(mark)
            while found < len(text) - 1 and text[found] == "\n":
                found += 1
            return found
    return place
