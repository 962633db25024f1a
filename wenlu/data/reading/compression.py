"""Files as streams of bytes, decompressed by their ending; what a small file may expand to is limited."""

import bz2
import contextlib
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from wenlu.base.errors import UserError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OPENERS = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open, ".zst": zstd.open}
FREE = 64 << 20
"""Bytes that any file may expand to."""
RATIO = 200
"""Times its size that a file may expand to beyond that; text shrinks to a tenth, seldom to a fiftieth."""


@contextlib.contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed by its ending. Refused: what is damaged, and what expands without measure."""
    opener = OPENERS.get(file.suffix.lower())
    try:
        with open(file, "rb") as stream:
            if opener is None:
                yield stream
                return
            counted = _Counted(stream)
            with opener(counted, "rb") as expanded:
                yield _Limited(file, counted, expanded)
    except PermissionError:
        raise UserError(f"{file} may not be read: change its permissions") from None
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, zstd.ZstdError) as error:
        raise UserError(f"{file} is damaged or cut short ({error}): fetch it again") from None
    except OSError as error:
        if error.errno is not None or opener is not bz2.open:
            raise
        raise UserError(f"{file} is damaged or cut short ({error}): fetch it again") from None


def refuse_expansion(file: Path, taken: int, given: int) -> None:
    """Refuse a file `taken` bytes of which have become `given` bytes, where that is more than text ever does."""
    if given > max(FREE, RATIO * taken):
        raise UserError(
            f"{file} expands to more than {RATIO} times its size ({taken:,} bytes became {given:,} and more), as no "
            "text does: where it is no decompression bomb but meant so, decompress it yourself and name the result"
        )


class _Counted:
    """A compressed file that counts the bytes taken from it."""

    def __init__(self, stream: IO[bytes]):
        self._stream, self.taken = stream, 0

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self.taken += len(block)
        return block


class _Limited(io.BufferedIOBase):
    """What comes out of a compressed file, as long as it is in proportion to what goes in."""

    def __init__(self, file: Path, counted: _Counted, expanded: IO[bytes]):
        self._file, self._counted, self._expanded, self._given = file, counted, expanded, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._expanded.read(size)
        self._given += len(block)
        refuse_expansion(self._file, self._counted.taken, self._given)
        return block
