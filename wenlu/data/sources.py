"""Documents from txt and jsonl files (also .gz and .xz), folders and standard input, in bounded memory."""

import contextlib
import gzip
import io
import json
import lzma
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from wenlu.base.errors import UserError

SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".txt.xz", ".jsonl.gz", ".jsonl.xz")
"""What is read from a folder; a file that is named itself may be called anything."""
CHUNK = 1 << 20
"""Bytes read at a time, and about the characters of a piece."""
LONGEST = 1 << 23
"""Characters after which a text without any fitting place is cut all the same."""
EXAMPLES = 20


@dataclass(frozen=True)
class Piece:
    """A part of a document, cut where no token of byte BPE could span."""

    document: int
    text: str
    last: bool
    """Whether it is the document's last part."""


@dataclass
class SourceCounts:
    """What was read, and what was not."""

    files: int = 0
    documents: int = 0
    lines: int = 0
    bytes: int = 0
    """Of the documents' text, in UTF-8."""
    bad_lines: int = 0
    empty: int = 0
    """Rows of jsonl with an empty text."""
    line_ends: int = 0
    """Pieces in which CRLF or CR became LF."""
    skipped_files: int = 0
    """Files in folders that are neither txt nor jsonl."""
    examples: list[str] = field(default_factory=list)
    """The first bad lines, as file:line: reason."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def list_files(paths: tuple[str, ...], counts: SourceCounts) -> list[Path]:
    """The files that paths stand for: folders are searched, hidden files and those of other kinds left out."""
    files = []
    for name in paths:
        path = Path(name)
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.is_file() and not _hidden(p.relative_to(path))]
            found = [p for p in inside if p.name.lower().endswith(SUFFIXES)]
            counts.skipped_files += len(inside) - len(found)
            if not found:
                raise UserError(f"{path} holds no text: it has no file ending in {', '.join(SUFFIXES)}")
            files += found
        elif path.exists():
            files.append(path)
        else:
            raise UserError(f"no file or folder {name}: check the path")
    return files


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


@contextlib.contextmanager
def spooled(paths: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The same paths with `-` replaced by a temporary file that holds standard input, so that it can be read again."""
    if "-" not in paths:
        yield paths
        return
    with tempfile.TemporaryDirectory(prefix="wenlu-") as folder:
        file = Path(folder) / "stdin"
        with open(file, "wb") as out:
            while block := sys.stdin.buffer.read(CHUNK):
                out.write(block)
        with file.open("rb") as stream:
            first = stream.readline(CHUNK).lstrip(b"\xef\xbb\xbf \t")
        name = file.rename(file.with_suffix(".jsonl" if first.startswith(b"{") else ".txt"))
        yield tuple(str(name) if path == "-" else path for path in paths)


def read_documents(
    paths: tuple[str, ...], counts: SourceCounts | None = None, *, field: str = "text", max_bad: float = 0.01
) -> Iterator[Piece]:
    """All documents of all paths, in order, in pieces. A txt file is a document, and so is a row of jsonl.

    A line that is no UTF-8, no JSON object, or lacks a text under `field` is counted and left out; where more than
    `max_bad` of a file's lines are bad, the file is refused.
    """
    counts = SourceCounts() if counts is None else counts
    document = 0
    for file in list_files(paths, counts):
        counts.files += 1
        before = counts.lines, counts.bad_lines, counts.documents
        reader = _rows if ".jsonl" in [s.lower() for s in file.suffixes] else _text
        for text, last in reader(file, counts, field):
            counts.bytes += len(text.encode())
            yield Piece(document, text, last)
            document += last
            counts.documents += last
        _judge(file, counts, before, max_bad)


def _judge(file: Path, counts: SourceCounts, before: tuple[int, int, int], max_bad: float) -> None:
    lines, bad = counts.lines - before[0], counts.bad_lines - before[1]
    if bad > max_bad * lines:
        first = next((e for e in counts.examples if e.startswith(f"{file}:")), str(file))
        raise UserError(
            f"{bad:,} of {lines:,} lines are bad, the first at {first}; mend the file, or allow more with --max-bad "
            f"{min(1.0, bad / lines + 0.01):.2f}"
        )
    if counts.documents == before[2]:
        raise UserError(f"{file} is empty: it holds no text")


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed by its ending."""
    openers = {".gz": gzip.open, ".xz": lzma.open}
    try:
        with openers.get(file.suffix.lower(), open)(file, "rb") as stream:
            yield stream
    except PermissionError:
        raise UserError(f"{file} may not be read: change its permissions") from None
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{file} is damaged or cut short ({error}): fetch it again") from None


def _text(file: Path, counts: SourceCounts, _: str) -> Iterator[tuple[str, bool]]:
    """(text, whether it is the last) of a txt file."""
    pending, waiting, first, some = b"", "", True, False
    with _opened(file) as stream:
        while True:
            block = stream.read(CHUNK)
            raw, pending = _whole_lines(pending + block, at_end=not block)
            if first and raw:
                _refuse_binary(file, raw)
                raw, first = raw.removeprefix(b"\xef\xbb\xbf"), False
            waiting += _decode(file, raw, counts)
            if not block:
                break
            while len(waiting) > CHUNK and (cut := cut_before(waiting, CHUNK)):
                yield waiting[:cut], False
                waiting, some = waiting[cut:], True
    if waiting or some:
        yield waiting, True


def _whole_lines(raw: bytes, *, at_end: bool) -> tuple[bytes, bytes]:
    """Split bytes after their last line end, so that neither a character nor a CRLF is torn; the rest waits."""
    if at_end:
        return raw, b""
    end = raw.rfind(b"\n") + 1 or raw.rfind(b"\r", 0, -1) + 1
    if not end and len(raw) > LONGEST:
        end = len(raw)
        while end and raw[end - 1] & 0xC0 == 0x80:
            end -= 1
        end -= 1
    return raw[:end], raw[end:]


def _refuse_binary(file: Path, raw: bytes) -> None:
    head = raw[:65536]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{file} is UTF-16: convert it first, for example by iconv -f UTF-16 -t UTF-8")
    if head.count(0) > 0.01 * len(head):
        raise UserError(f"{file} is a binary file, not text: name txt or jsonl files")


def _decode(file: Path, raw: bytes, counts: SourceCounts) -> str:
    """Text with LF line ends; lines that are no UTF-8 are counted and left out."""
    first_line = counts.lines + 1
    counts.lines += raw.count(b"\n") + (not raw.endswith(b"\n") and bool(raw))
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        lines = raw.splitlines(keepends=True) if b"\n" in raw else [raw]
        text = "".join(_good_lines(file, lines, first_line, counts))
    if "\r" in text:
        counts.line_ends += 1
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def _good_lines(file: Path, lines: list[bytes], number: int, counts: SourceCounts) -> Iterator[str]:
    for offset, line in enumerate(lines):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            _bad(counts, file, number + offset, f"no UTF-8 (byte 0x{line[error.start]:02x})")


def _bad(counts: SourceCounts, file: Path, line: int, reason: str) -> None:
    counts.bad_lines += 1
    if len(counts.examples) < EXAMPLES:
        counts.examples.append(f"{file}:{line}: {reason}")


def _rows(file: Path, counts: SourceCounts, field: str) -> Iterator[tuple[str, bool]]:
    """(text, True) of every row of a jsonl file."""
    with _opened(file) as stream, io.BufferedReader(stream, CHUNK) as lines:
        for number, line in enumerate(lines, 1):
            counts.lines += 1
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not line.strip():
                continue
            text, reason = _row_text(line, field)
            if reason:
                _bad(counts, file, number, reason)
            elif not text:
                counts.empty += 1
            else:
                yield text.replace("\r\n", "\n").replace("\r", "\n"), True


def _row_text(line: bytes, field: str) -> tuple[str, str]:
    """(text, "") of a row, or ("", what is wrong with it)."""
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        return "", "no UTF-8"
    except (ValueError, RecursionError) as error:
        return "", f"no JSON ({str(error)[:80]})"
    if not isinstance(row, dict) or not isinstance(row.get(field), str):
        return "", f"no text under {field!r}"
    try:
        row[field].encode()
    except UnicodeEncodeError:
        return "", "a lone surrogate, which is no character"
    return row[field], ""


def cut_before(text: str, limit: int) -> int:
    """Where to end a piece of about `limit` characters: before a line end that follows a letter or digit, since no
    token of byte BPE (GPT-2's expression) spans it. 0: nowhere yet; past `LONGEST` characters, anywhere.
    """
    place = limit
    while (place := text.rfind("\n", 1, place)) > 0:
        if text[place - 1].isalnum():
            return place
    return limit if len(text) > LONGEST else 0
