"""Documents from txt and jsonl files (also .gz and .xz), folders and standard input, in bounded memory."""

import contextlib
import gzip
import io
import json
import lzma
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from wenlu.base.errors import UserError
from wenlu.base.files import writing

SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".txt.xz", ".jsonl.gz", ".jsonl.xz")
"""What is read from a folder; a file that is named itself may be called anything."""
CHUNK = 1 << 20
"""Bytes read at a time, and about the characters of a piece."""
LONGEST = 1 << 23
"""Characters after which a text without any fitting place is cut all the same."""
EXAMPLES = 20

_AFTER_WORD = re.compile(r"[^\W_](?=\n)")
_AFTER_SIGN = re.compile(r"\S(?=\n)")
_BEFORE_SPACE = re.compile(r"\S(?=\s)")


@dataclass(frozen=True)
class Piece:
    """A part of a document, cut where no token of byte BPE or Unigram could span."""

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
    """Pieces and rows in which CRLF or CR became LF."""
    skipped_files: int = 0
    """Files in folders that are neither txt nor jsonl, or no plain files."""
    examples: list[str] = field(default_factory=list)
    """The first bad lines, as file:line: reason."""

    def __post_init__(self):
        self.first_bad = ""  # of the file that is being read; no figure

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def list_files(paths: tuple[str, ...], counts: SourceCounts) -> list[Path]:
    """The files that paths stand for: folders are searched, hidden files and those of other kinds left out."""
    files = []
    for name in paths:
        path = Path(name)
        if os.path.isdir(name):
            inside = _inside(path)
            found = [p for p in inside if p.name.lower().endswith(SUFFIXES) and p.is_file()]
            counts.skipped_files += len(inside) - len(found)
            if not found:
                raise UserError(f"{path} holds no text: it has no file ending in {', '.join(SUFFIXES)}")
            files += found
        elif os.path.exists(name):
            files.append(path)
        else:
            raise UserError(f"no file or folder {name}: check the path")
    return files


def _inside(folder: Path) -> list[Path]:
    """Everything below a folder but folders and what is hidden, sorted."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} may not be read ({error.strerror}): change its permissions, or move it")

    found = []
    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(found)


@contextlib.contextmanager
def spooled(paths: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The same paths, those that can be read only once (`-` for standard input, pipes) copied to temporary files.

    A copy is jsonl where its first line is a JSON object, else txt. Errors raised inside name the path that was given.
    """
    once = [path for path in dict.fromkeys(paths) if path == "-" or _is_pipe(path)]
    if not once:
        yield paths
        return
    with tempfile.TemporaryDirectory(prefix="wenlu-") as folder:
        copies = {path: str(_spool(path, Path(folder) / str(number))) for number, path in enumerate(once)}
        try:
            yield tuple(copies.get(path, path) for path in paths)
        except UserError as error:
            message = str(error)
            for path, copy in copies.items():
                message = message.replace(copy, "stdin" if path == "-" else path)
            raise UserError(message) from error


def _is_pipe(path: str) -> bool:
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _spool(path: str, copy: Path) -> Path:
    with contextlib.ExitStack() as stack:
        stream = sys.stdin.buffer if path == "-" else stack.enter_context(_opened(Path(path)))
        stack.enter_context(writing(copy))
        out = stack.enter_context(open(copy, "wb"))
        while block := stream.read(CHUNK):
            out.write(block)
    with copy.open("rb") as stream:
        first = stream.readline(LONGEST).removeprefix(b"\xef\xbb\xbf")
        first += stream.readline() if first.lstrip().startswith(b"{") and not first.endswith(b"\n") else b""
    try:
        suffix = ".jsonl" if isinstance(json.loads(first), dict) else ".txt"
    except (ValueError, RecursionError):
        suffix = ".txt"
    return copy.rename(copy.with_suffix(suffix))


def read_documents(
    paths: tuple[str, ...], counts: SourceCounts | None = None, *, field: str = "text", max_bad: float = 0.01
) -> Iterator[Piece]:
    """All documents of all paths, in order, in pieces. A txt file is a document, and so is a row of jsonl.

    A line that is no UTF-8, no JSON object, or lacks a text under `field` is counted and left out; where more than
    `max_bad` of a file's lines are bad, the file is refused.
    """
    if not 0 <= max_bad <= 1:
        raise UserError(f"max-bad must lie in [0, 1], not {max_bad}")
    counts = SourceCounts() if counts is None else counts
    document = 0
    for file in list_files(paths, counts):
        counts.files += 1
        counts.first_bad = ""
        before = counts.lines, counts.bad_lines, counts.documents
        reader = _rows if re.search(r"\.jsonl(\.gz|\.xz)?$", file.name, re.IGNORECASE) else _text
        for text, last in reader(file, counts, field):
            counts.bytes += len(text.encode())
            yield Piece(document, text, last)
            document += last
            counts.documents += last
        _judge(file, counts, before, max_bad)


def _judge(file: Path, counts: SourceCounts, before: tuple[int, int, int], max_bad: float) -> None:
    lines, bad = counts.lines - before[0], counts.bad_lines - before[1]
    if bad > max_bad * lines:
        raise UserError(
            f"{bad:,} of {lines:,} lines are bad, more than {max_bad:.2%}, the first at {counts.first_bad}; "
            f"mend the file, or allow more with --max-bad {min(1.0, bad / lines + 0.01):.2f}"
        )
    if bad and counts.documents == before[2]:
        raise UserError(f"{file} holds no text: its lines are bad, the first at {counts.first_bad}")
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
            raw, pending = _whole_lines(pending + block) if block else (pending, b"")
            if first and raw:
                _refuse_binary(file, raw)
                raw, first = raw.removeprefix(b"\xef\xbb\xbf"), False
            waiting += _decode(file, raw, counts)
            if not block:
                break
            while len(waiting) > CHUNK and (cut := cut_after(waiting, CHUNK)):
                yield waiting[:cut], False
                waiting, some = waiting[cut:], True
    if waiting or some:
        yield waiting, True


def _whole_lines(raw: bytes) -> tuple[bytes, bytes]:
    """Split bytes after their last line end, so that neither a character nor a CRLF is torn; the rest waits."""
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
    if head.count(0) > 0.01 * len(head) or (0 in head and "\ufffd" in head.decode("utf-8", "replace")[:-1]):
        raise UserError(f"{file} is a binary file, not text: name txt or jsonl files")


def _decode(file: Path, raw: bytes, counts: SourceCounts) -> str:
    """Text with LF line ends; lines that are no UTF-8 are counted and left out."""
    first_line = counts.lines + 1
    counts.lines += raw.count(b"\n") + raw.count(b"\r") - raw.count(b"\r\n") + (raw[-1:] not in b"\r\n")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = "".join(_good_lines(file, raw.splitlines(keepends=True), first_line, counts))
    if "\r" in text:
        counts.line_ends += 1
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def _good_lines(file: Path, lines: list[bytes], number: int, counts: SourceCounts) -> Iterator[str]:
    for offset, line in enumerate(lines):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            reason = f"no UTF-8 (byte 0x{line[error.start]:02x}; another encoding? iconv -f GB18030 -t UTF-8 converts)"
            _bad(counts, file, number + offset, reason)


def _bad(counts: SourceCounts, file: Path, line: int, reason: str) -> None:
    counts.bad_lines += 1
    counts.first_bad = counts.first_bad or f"{file}:{line}: {reason}"
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
                counts.line_ends += "\r" in text
                yield text.replace("\r\n", "\n").replace("\r", "\n"), True


def _row_text(line: bytes, field: str) -> tuple[str, str]:
    """(text, "") of a row, or ("", what is wrong with it)."""
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        return "", "no UTF-8"
    except (ValueError, RecursionError) as error:
        return "", f"no JSON ({str(error)[:80]})"
    if not isinstance(row, dict):
        return "", "no JSON object"
    if not isinstance(row.get(field), str):
        texts = [repr(name) for name, value in row.items() if isinstance(value, str)]
        return "", f"no text under {field!r}" + (f" (--field may name {', '.join(texts[:5])})" if texts else "")
    try:
        row[field].encode()
    except UnicodeEncodeError:
        return "", "a lone surrogate, which is no character"
    return row[field], ""


def cut_after(text: str, size: int) -> int:
    """Where to end a piece of `size` characters or a little more: before a line end, since no token spans it.

    The line should end with a letter or digit, which parts tokens under GPT-2's and Qwen2's expressions alike; where
    none does (Chinese ends lines with a full stop), any line will do, which parts them under GPT-2's. 0: nowhere yet.
    Past `LONGEST` characters without a line end: before white space, and where there is none, anywhere.
    """
    match = _AFTER_WORD.search(text, size - 1)
    if match is None and len(text) > 2 * size:
        match = _AFTER_SIGN.search(text, size - 1)
    if match is None and len(text) > LONGEST:
        match = _BEFORE_SPACE.search(text, size - 1)
        return match.end() if match else LONGEST
    return match.end() if match else 0
