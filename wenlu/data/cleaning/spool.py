"""Cleaned texts in one temporary file: written once, read again by every later pass, in pieces as from the sources."""

import codecs
import contextlib
import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

from wenlu.data.reading.pieces import in_pieces
from wenlu.data.reading.sources import Piece

BLOCK = 1 << 20
"""Bytes read at a time."""


class Spool:
    """Documents one after another; a document that changes is written anew at the end. 16 bytes of memory each."""

    def __init__(self, path: Path):
        self._path = path
        self._out = open(path, "wb")  # noqa: SIM115 - closed by close()
        self._in = open(path, "rb")  # noqa: SIM115
        self._starts, self._sizes = array("q"), array("q")
        self._begin = self._end = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_) -> None:
        """Close and remove the file; what could not be flushed to a full disk is of no use any more."""
        self._in.close()
        with contextlib.suppress(OSError):
            self._out.close()
        self._path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._starts)

    def write(self, text: str) -> None:
        """Add a part to the document at hand."""
        raw = text.encode()
        self._out.write(raw)
        self._end += len(raw)

    def end(self) -> int:
        """End the document at hand; returns its number."""
        self._starts.append(self._begin)
        self._sizes.append(self._end - self._begin)
        self._begin = self._end
        return len(self._starts) - 1

    def replace(self, document: int) -> None:
        """What was written since the last document's end takes the place of `document`."""
        self._starts[document], self._sizes[document] = self._begin, self._end - self._begin
        self._begin = self._end

    def size(self, document: int) -> int:
        """Bytes of a document."""
        return self._sizes[document]

    def texts(self, document: int) -> Iterator[str]:
        """A document in parts of about 1 MB, cut where no token spans; an empty one is one empty part."""
        return (piece.text for piece in self.pieces([document]))

    def pieces(self, documents: Iterable[int]) -> Iterator[Piece]:
        """The pieces of these documents, numbered anew from 0."""
        for number, document in enumerate(documents):
            if not self._sizes[document]:
                yield Piece(number, "", True)
            for text, last in in_pieces(self._blocks(document)):
                yield Piece(number, text, last)

    def _blocks(self, document: int) -> Iterator[str]:
        self._out.flush()
        start, left = self._starts[document], self._sizes[document]
        decoder = codecs.getincrementaldecoder("utf-8")()
        while left:
            raw = os.pread(self._in.fileno(), min(BLOCK, left), start)
            start, left = start + len(raw), left - len(raw)
            yield decoder.decode(raw, final=not left)
