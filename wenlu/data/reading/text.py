"""Text, Markdown, HTML and jsonl: text of any encoding, what is bad in it left out and counted."""

import contextlib
import functools
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError
from wenlu.data.reading import pieces
from wenlu.data.reading.compression import opened
from wenlu.data.reading.counts import SourceCounts
from wenlu.data.reading.encodings import Utf8
from wenlu.data.reading.markup import charset_of, text_of
from wenlu.data.reading.pieces import in_pieces

LONGEST_ROW = 1 << 28
"""Bytes of a row or a web page, which must be held whole."""

_FRONT_MATTER = re.compile(
    r"---[ \t]*\n(?=[\w\"'][^:\n]*:)"
    r"(?:\n|[ \t#-].*\n|[\w\"'][^:\n]*:(?:[ \t].*)?\n)*?"
    r"(?:---|\.\.\.)[ \t]*(?:\n|\Z)"
)


@contextlib.contextmanager
def text_stream(file: Path, counts: SourceCounts, declares: bool = False) -> Iterator[Utf8]:
    """A file's text as UTF-8; the encoding that it was in is counted. `declares`: its head may name a charset."""
    with opened(file) as stream:
        text = Utf8(stream, file, charset_of if declares else None)
        yield text
    counts.encodings[text.encoding] = counts.encodings.get(text.encoding, 0) + 1


def read_text(file: Path, counts: SourceCounts, _: str) -> Iterator[tuple[str, bool]]:
    """The whole file is one document."""
    with text_stream(file, counts) as stream:
        yield from in_pieces(text_parts(stream, counts))


def read_markdown(file: Path, counts: SourceCounts, _: str) -> Iterator[tuple[str, bool]]:
    """The text as it is, but for a block of YAML at its head."""
    with text_stream(file, counts) as stream:
        yield from in_pieces(_without_front_matter(text_parts(stream, counts), counts))


def _without_front_matter(parts: Iterator[str], counts: SourceCounts) -> Iterator[str]:
    first = next(parts, "")
    if match := _FRONT_MATTER.match(first):
        counts.front_matter += 1
        first = first[match.end() :].lstrip("\n")
    yield first
    yield from parts


def read_html(file: Path, counts: SourceCounts, _: str) -> Iterator[tuple[str, bool]]:
    """The visible text of a page, which is held whole."""
    with text_stream(file, counts, declares=True) as stream:
        parts, size = [], 0
        for part in text_parts(stream, counts):
            parts.append(part)
            size += len(part)
            if size > LONGEST_ROW:
                raise UserError(f"{file} is longer than {LONGEST_ROW:,} characters, too long for one page: split it")
        yield from in_pieces([text_of("".join(parts))])


def text_parts(stream: Utf8, counts: SourceCounts) -> Iterator[str]:
    """A document's text with LF line ends, in parts that tear neither a character nor a line end."""
    changed = False
    for raw in _blocks(stream):
        text = _decode(raw, counts, stream.encoding)
        if "\r" in text:
            counts.line_ends += not changed
            changed = True
            text = _with_line_feeds(text)
        yield text


def _with_line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _blocks(stream: Utf8) -> Iterator[bytes]:
    pending = b""
    while block := stream.block(pieces.CHUNK):
        raw, pending = _whole_lines(pending + block)
        if raw:
            yield raw
    if pending:
        yield pending


def _whole_lines(raw: bytes) -> tuple[bytes, bytes]:
    """Split bytes after their last line end, so that neither a character nor a CRLF is torn; the rest waits."""
    end = raw.rfind(b"\n") + 1 or raw.rfind(b"\r", 0, -1) + 1
    if not end and len(raw) > pieces.LONGEST:
        end = len(raw)
        while end and raw[end - 1] & 0xC0 == 0x80:
            end -= 1
        end -= 1
    return raw[:end], raw[end:]


def _decode(raw: bytes, counts: SourceCounts, encoding: str) -> str:
    """Text; lines that cannot be decoded are counted and left out."""
    first_line = counts.line + 1
    returns = raw.count(b"\r")
    counts.lines += raw.count(b"\n") + returns - (raw.count(b"\r\n") if returns else 0) + (raw[-1:] not in b"\r\n")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(_good_lines(raw.splitlines(keepends=True), first_line, counts, encoding))


def _good_lines(lines: list[bytes], number: int, counts: SourceCounts, encoding: str) -> Iterator[str]:
    for offset, line in enumerate(lines):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            counts.bad(number + offset, _no_text(encoding, line[error.start]))


def _no_text(encoding: str, byte: int) -> str:
    """Why a line cannot be decoded."""
    if encoding != "utf-8":
        return f"no {encoding.upper()}"
    return f"no UTF-8 (byte 0x{byte:02x}; another encoding? iconv -f ENCODING -t UTF-8 converts)"


def lines_of(stream: Utf8, counts: SourceCounts) -> Iterator[bytes]:
    """The lines of a stream, counted; those that are too long to be held are bad."""
    with io.BufferedReader(stream, pieces.CHUNK) as buffered:
        for line in iter(functools.partial(buffered.readline, LONGEST_ROW), b""):
            counts.lines += 1
            if len(line) < LONGEST_ROW or line.endswith(b"\n"):
                yield line
                continue
            while line and not line.endswith(b"\n"):
                line = buffered.readline(pieces.CHUNK)
            counts.bad(counts.line, f"longer than {LONGEST_ROW:,} bytes")


def read_jsonl(file: Path, counts: SourceCounts, field: str) -> Iterator[tuple[str, bool]]:
    """Every row is a document: the text under `field` of a JSON object."""
    for row in json_rows(file, counts):
        text = row.get(field)
        reason = no_character(text) if isinstance(text, str) else _no_field(row, field)
        if reason:
            counts.bad(counts.line, reason)
            continue
        text = row_of(text, counts)
        if len(text) > pieces.CHUNK:
            yield from in_pieces([text])
        elif text:
            yield text, True


def json_rows(file: Path, counts: SourceCounts) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file's lines; lines that hold none are counted as bad, empty ones passed over."""
    with text_stream(file, counts) as stream:
        for line in lines_of(stream, counts):
            if line.isspace():
                continue
            row, reason = _object(line, stream.encoding)
            if reason:
                counts.bad(counts.line, reason)
            else:
                yield row


def row_of(text: str, counts: SourceCounts) -> str:
    """A row's text with LF line ends; an empty one is counted."""
    if "\r" in text:
        counts.line_ends += 1
        return _with_line_feeds(text)
    counts.empty += not text
    return text


def _object(line: bytes, encoding: str) -> tuple[dict[str, Any], str]:
    """(the object in a line, ""), or ({}, what is wrong with it)."""
    try:
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            row = json.loads(line)  # which lets lone surrogates in, to be named below
    except UnicodeDecodeError as error:
        return {}, _no_text(encoding, line[error.start])
    except (ValueError, RecursionError) as error:
        return {}, f"no JSON ({str(error)[:80]})"
    return (row, "") if isinstance(row, dict) else ({}, "no JSON object")


def _no_field(row: dict[str, Any], field: str) -> str:
    """Why a row has no text, and which fields have one."""
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    lack = f"no text under {field!r}"
    if field in row:
        lack = f"{field!r} holds {kinds.get(type(row[field]), 'null')}, not a text"
    texts = [repr(name) for name, value in row.items() if isinstance(value, str)]
    return lack + (f" (--field may name {', '.join(texts[:5])})" if texts else "")


def no_character(text: str) -> str:
    """What is wrong with a text that holds a lone surrogate; else ""."""
    if text.isascii():
        return ""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a lone surrogate, which is no character"
    return ""
