"""PDF and EPUB: a book is one document, its pages or chapters one after the other."""

import io
import logging
import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.parsers import expat

from wenlu.base.errors import UserError
from wenlu.data.reading.compression import refuse_expansion
from wenlu.data.reading.counts import SourceCounts
from wenlu.data.reading.encodings import Utf8
from wenlu.data.reading.extras import extra
from wenlu.data.reading.markup import charset_of, closed, text_of
from wenlu.data.reading.pieces import in_pieces
from wenlu.data.reading.text import no_character

Element = tuple[str, dict[str, str]]


def read_pdf(file: Path, counts: SourceCounts, _: str) -> Iterator[tuple[str, bool]]:
    """The text layer of every page; pages that cannot be read are counted."""
    pypdf = extra("pypdf", "pdf", str(file))
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what cannot be read is counted or refused, in our words
    try:
        with open(file, "rb") as stream:
            reader = pypdf.PdfReader(stream)
            if reader.is_encrypted and not reader.decrypt(""):
                raise UserError(f"{file} is locked by a password: unlock it first, or leave it out")
            before, some = counts.bad_lines, False
            for piece in in_pieces(_pages(reader, counts)):
                yield piece
                some = True
    except PermissionError:
        raise UserError(f"{file} may not be read: change its permissions") from None
    except (pypdf.errors.PyPdfError, pypdf.errors.DependencyError) as error:
        raise UserError(f"{file} is damaged, locked, or no PDF ({str(error)[:100]}): fetch it again") from None
    if not some and counts.bad_lines == before:
        counts.lack = "has no text layer, as in a scan: have its text recognised (OCR), or leave it out"


def _pages(reader: Any, counts: SourceCounts) -> Iterator[str]:
    for number in range(len(reader.pages)):
        counts.lines += 1
        try:
            text = reader.pages[number].extract_text()
        except Exception as error:  # whatever a damaged page makes of it
            counts.bad(number + 1, f"a page that cannot be read ({type(error).__name__}: {str(error)[:80]})")
            continue
        if reason := no_character(text):
            counts.bad(number + 1, reason)
        elif text.strip():
            yield text.strip("\n") + "\n"


def read_epub(file: Path, counts: SourceCounts, _: str) -> Iterator[tuple[str, bool]]:
    """The chapters in the order of the book's spine. Nothing is unpacked to the disk, no entity is looked up."""
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            refuse_expansion(file, file.stat().st_size, size)
            yield from in_pieces(_chapters(_Book(file, archive), counts))
    except PermissionError:
        raise UserError(f"{file} may not be read: change its permissions") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, expat.ExpatError) as error:
        raise UserError(f"{file} is damaged, or no EPUB ({error}): fetch it again") from None


class _Book:
    """The chapters of an EPUB: which entries of the archive they are."""

    def __init__(self, file: Path, archive: zipfile.ZipFile):
        self.file, self._archive = file, archive
        self._names = set(archive.namelist())
        elements = self._elements("META-INF/container.xml")
        roots = [path for tag, found in elements if tag == "rootfile" and (path := found.get("full-path"))]
        if not roots:
            raise zipfile.BadZipFile("its container names no package")
        self._folder = posixpath.dirname(roots[0])
        package = self._elements(roots[0])
        targets = {found.get("id"): found.get("href", "") for tag, found in package if tag == "item"}
        spine = [found.get("idref") for tag, found in package if tag == "itemref"]
        self.chapters = [self._entry(targets.get(name, ""), self._folder) for name in spine]
        self._refuse_locked()

    def read(self, entry: str) -> bytes:
        """An entry's bytes; KeyError where the archive has none of that name."""
        return self._archive.read(entry)

    def _entry(self, target: str, folder: str) -> str:
        """The name in the archive that a link stands for; it is looked up there and nowhere else."""
        return posixpath.normpath(posixpath.join(folder, unquote(target.partition("#")[0])))

    def _elements(self, entry: str) -> list[Element]:
        """(tag, attributes) of every element of an XML file, in order. Entities are refused: they can be bombs."""
        found: list[Element] = []

        def refuse(*_: Any) -> None:
            raise UserError(f"{entry} in {self.file} declares XML entities, which may be a bomb: leave the file out")

        parser = expat.ParserCreate(namespace_separator=" ")
        parser.EntityDeclHandler = refuse
        parser.StartElementHandler = lambda tag, attributes: found.append((tag.rpartition(" ")[2], attributes))
        try:
            parser.Parse(self.read(entry), True)
        except KeyError:
            raise zipfile.BadZipFile(f"it has no {entry}") from None
        return found

    def _refuse_locked(self) -> None:
        locked = {entry.filename for entry in self._archive.infolist() if entry.flag_bits & 1}
        if "META-INF/encryption.xml" in self._names:
            links = (found for tag, found in self._elements("META-INF/encryption.xml") if tag == "CipherReference")
            locked |= {self._entry(found.get("URI", ""), "") for found in links}
        if locked & set(self.chapters):
            raise UserError(f"{self.file} is locked (encrypted chapters): only an unlocked copy can be read")


def _chapters(book: _Book, counts: SourceCounts) -> Iterator[str]:
    for number, entry in enumerate(book.chapters, 1):
        counts.lines += 1
        try:
            raw = book.read(entry)
            text = text_of(closed(Utf8(io.BytesIO(raw), f"{entry} in {book.file}", charset_of).read().decode("utf-8")))
        except KeyError:
            counts.bad(number, f"a chapter that the archive lacks ({entry})")
        except UnicodeDecodeError:
            counts.bad(number, f"a chapter that is no text ({entry})")
        else:
            if text:
                yield text + "\n"
