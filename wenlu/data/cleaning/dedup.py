"""Near-duplicates: documents whose 5-grams of units are mostly the same, found by MinHash in 0.6 kB a document.

Broder 1997 (resemblance by min-wise hashing), with the banding of Leskovec, Rajaraman and Ullman, Mining of Massive
Datasets, chapter 3. A pair of Jaccard similarity 0.8 shares a band of 6 of 126 values with probability
1 - (1 - 0.8^6)^21 = 0.998, and is then compared by all 126.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from wenlu.data.cleaning.units import MULTIPLIER, ngrams

NGRAM = 5
"""Units in an n-gram."""
BANDS, ROWS = 21, 6
VALUES = BANDS * ROWS
LIKE = 0.72
"""Estimated Jaccard similarity from which two documents are near-duplicates: 0.8 less two standard errors."""
LEAST = 30
"""Units below which a document is too short to be called nearly the same as another."""
SEED = 20261125
AT_ONCE = 1 << 17
"""N-grams hashed together: a call by itself costs a third of a millisecond."""
PARTS_AT_ONCE = 4096
ROW = 4 * VALUES
"""Bytes."""
FORGOTTEN = -1


class Signatures:
    """A MinHash signature for every document, 504 bytes each; computed for many at a time."""

    def __init__(self):
        self._parts: list[np.ndarray] = []
        self._owners: list[int] = []
        self._waiting = self._count = self._units = 0
        self._rows = bytearray()
        self._wanted, self._documents, self._replaced = array("q"), array("q"), array("q")
        self._groups: list[list[int]] | None = None
        """As they were found last; None: something has changed since."""

    def add(self, numbers: np.ndarray) -> None:
        """A part of the document at hand: the numbers of its units (`units.unit_numbers`)."""
        self._parts.append(ngrams(numbers, NGRAM))
        self._owners.append(self._count)
        self._units += len(numbers)
        self._waiting += len(numbers)
        if self._waiting > AT_ONCE or len(self._parts) >= PARTS_AT_ONCE:
            self._flush()

    def end(self, document: int, *, keep: bool = True) -> None:
        """The document at hand ends; its number, higher than those before, is `document`. Without `keep` it is
        forgotten."""
        assert not self._replaced
        self._groups = None
        if keep and self._units >= LEAST:
            self._wanted.append(self._count)
            self._documents.append(document)
        self._count, self._units = self._count + 1, 0

    def replace(self, document: int, *, keep: bool = True) -> None:
        """The document at hand ends and takes the place of one that ended before, with its number."""
        self._groups = None
        if not keep or self._units < LEAST:
            self.forget(document)
        self._replaced.append(document)
        self._count, self._units = self._count + 1, 0
        if len(self._replaced) >= PARTS_AT_ONCE:
            self._settle()

    def forget(self, document: int) -> None:
        """Compare a document no more."""
        place = bisect_left(self._documents, document)
        if self._documents[place : place + 1] == array("q", [document]):
            self._wanted[place], self._groups = FORGOTTEN, None

    def _settle(self) -> None:
        """Move the rows of documents that replace others, the last ones, into the places of those."""
        self._flush()
        begin = len(self._rows) - ROW * len(self._replaced)
        for number, document in enumerate(self._replaced):
            place = bisect_left(self._documents, document)
            if self._documents[place : place + 1] == array("q", [document]) and self._wanted[place] != FORGOTTEN:
                old, new = ROW * self._wanted[place], begin + ROW * number
                self._rows[old : old + ROW] = self._rows[new : new + ROW]
        del self._rows[begin:]
        self._count -= len(self._replaced)
        self._replaced = array("q")

    def groups(self) -> list[list[int]]:
        """The documents that are nearly the same, as lists of two or more, in order."""
        if self._groups is None:
            self._groups = self._found_groups()
        return self._groups

    def _found_groups(self) -> list[list[int]]:
        self._settle()
        rows = np.frombuffer(self._rows, dtype=np.uint32).reshape(-1, VALUES)
        wanted = np.array(self._wanted, dtype=np.int64)
        kept = np.flatnonzero(wanted != FORGOTTEN)
        first = connected(rows, wanted[kept])
        members: dict[int, list[int]] = {}
        for row in np.flatnonzero(first != np.arange(len(first))).tolist():
            head = int(first[row])
            members.setdefault(head, [self._documents[kept[head]]]).append(self._documents[kept[row]])
        return list(members.values())

    def _flush(self) -> None:
        if not self._parts:
            return
        owners = np.array(self._owners)
        starts = np.flatnonzero(np.concatenate(([True], owners[1:] != owners[:-1])))
        rows = np.minimum.reduceat(signatures(self._parts), starts, axis=0)
        if owners[0] * ROW < len(self._rows):  # a document that was begun in the batch before
            rows[0] = np.minimum(rows[0], np.frombuffer(self._rows[-ROW:], dtype=np.uint32))
            del self._rows[-ROW:]
        self._rows += rows.tobytes()
        self._parts, self._owners, self._waiting = [], [], 0


def signatures(texts: Sequence[np.ndarray]) -> np.ndarray:
    """The least of 126 hashes over each text's n-grams; uint32 [texts, 126]."""
    from rensa import RMinHash

    ends = np.cumsum([0, *map(len, texts)])
    flat = np.concatenate(texts)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(flat, ends.tolist(), VALUES, SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(-1, VALUES)


def connected(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For every one of the wanted rows the first of its group; groups are joined by pairs of `LIKE` or more.

    One band at a time, so that beside the signatures only some numbers a document are held.
    """
    parent = np.arange(len(wanted))
    for band in range(BANDS if len(wanted) > 1 else 0):
        keys = _band_keys(rows[:, band * ROWS : (band + 1) * ROWS])[wanted]
        order = np.argsort(keys, kind="stable")
        same = keys[order[1:]] == keys[order[:-1]]
        starts = np.flatnonzero(np.concatenate(([True], ~same)))
        heads = order[np.repeat(starts, np.diff(np.append(starts, len(order))))]
        for left in (order[:-1], heads[1:]):  # each with the one before it, and with the first of its run
            pairs = np.stack([left[same], order[1:][same]], axis=1)
            for a, b in _alike(rows, wanted, pairs):
                _join(parent, a, b)
    return np.array([_root(parent, row) for row in range(len(wanted))], dtype=np.int64)


def joined(groups: list[list[int]]) -> list[list[int]]:
    """Groups of documents, those with one in common made one, each in order."""
    parent = {document: document for group in groups for document in group}
    for first, *others in groups:
        for document in others:
            _join(parent, first, document)
    members: dict[int, list[int]] = {}
    for document in sorted(parent):
        members.setdefault(_root(parent, document), []).append(document)
    return list(members.values())


def _band_keys(rows: np.ndarray) -> np.ndarray:
    """One number for each row of a band."""
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        mixed = (mixed ^ column) * MULTIPLIER
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _alike(rows: np.ndarray, wanted: np.ndarray, pairs: np.ndarray, at_once: int = 1 << 12) -> list[Sequence[int]]:
    found = []
    for start in range(0, len(pairs), at_once):
        part = pairs[start : start + at_once]
        like = (rows[wanted[part[:, 0]]] == rows[wanted[part[:, 1]]]).mean(axis=1) >= LIKE
        found += part[like].tolist()
    return found


def _root(parent: np.ndarray | dict[int, int], row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = int(parent[row])
    return row


def _join(parent: np.ndarray | dict[int, int], a: int, b: int) -> None:
    a, b = _root(parent, a), _root(parent, b)
    parent[max(a, b)] = min(a, b)
