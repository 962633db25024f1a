"""Records with several fields (json, jsonl, csv, tsv, parquet), and lines, each with the place it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError
from wenlu.data.reading.compression import OPENERS
from wenlu.data.reading.counts import SourceCounts
from wenlu.data.reading.extras import extra
from wenlu.data.reading.tables import table_rows
from wenlu.data.reading.text import LONGEST_ROW, json_rows, lines_of, text_stream

Record = tuple[int, dict[str, Any]]
"""Number of the line (of a JSON list: of the entry) and its fields."""


def kind_of(file: Path) -> str:
    """A file's ending in small letters, without that of a compression."""
    packed = file.suffix.lower() in OPENERS
    return (file.with_suffix("") if packed else file).suffix.lower()


def records_of(file: Path, counts: SourceCounts) -> Iterator[Record]:
    """The records of a file by its ending; a table's first row names the fields. What is bad in it is counted."""
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _table, ".tsv": _table, ".parquet": _parquet}
    reader = readers.get(kind_of(file))
    if reader is None:
        known = ", ".join(readers)
        raise UserError(f"{file} is of no kind that holds records: name files ending in {known}")
    counts.begin(file)
    yield from reader(file, counts)


def _jsonl(file: Path, counts: SourceCounts) -> Iterator[Record]:
    for row in json_rows(file, counts):
        yield counts.line, row


def _json(file: Path, counts: SourceCounts) -> Iterator[Record]:
    """A list of objects, or one object that holds such a list under `data`."""
    body = json_body(file, counts)
    body = body["data"] if isinstance(body, dict) and isinstance(body.get("data"), list) else body
    if not isinstance(body, list):
        raise UserError(
            f"{file} holds no list of records: it must be a JSON list, an object with one under 'data', or jsonl"
        )
    for number, row in enumerate(body, start=1):
        counts.lines += 1
        if isinstance(row, dict):
            yield number, row
        else:
            counts.bad(number, "no JSON object")


def json_body(file: Path, counts: SourceCounts) -> Any:
    """What a JSON file holds, read whole."""
    with text_stream(file, counts) as stream:
        parts, size = [], 0
        while block := stream.block(1 << 20):
            parts.append(block)
            size += len(block)
            if size > 4 * LONGEST_ROW:
                raise UserError(
                    f"{file} is longer than {4 * LONGEST_ROW:,} bytes, too long to be read whole: make it jsonl"
                )
    try:
        return json.loads(b"".join(parts).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{file} is no JSON ({str(error)[:80]}): mend it, or name it .jsonl if each line is a record"
        ) from None


def _table(file: Path, counts: SourceCounts) -> Iterator[Record]:
    rows = table_rows(file, counts, "," if kind_of(file) == ".csv" else "\t")
    names = [name.strip() for name in next(rows, [])]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{file} has two columns {twice!r}: rename one")
    for row in rows:
        yield counts.line, dict(zip(names, row, strict=True))


def _parquet(file: Path, counts: SourceCounts) -> Iterator[Record]:
    arrow, parquet = extra("pyarrow", "parquet", str(file)), extra("pyarrow.parquet", "parquet", str(file))
    try:
        with open(file, "rb") as stream, parquet.ParquetFile(stream) as table:
            for batch in table.iter_batches(1024):
                for row in batch.to_pylist():
                    counts.lines += 1
                    yield counts.line, row
    except (arrow.ArrowException, OSError) as error:
        raise UserError(f"{file} is damaged, or no parquet ({str(error)[:100]}): fetch it again") from None


def text_lines(file: Path, counts: SourceCounts) -> Iterator[tuple[int, str | None]]:
    """(number, text) of every line, without its end; None where it cannot be decoded, which is counted as bad."""
    counts.begin(file)
    with text_stream(file, counts) as stream:
        for line in lines_of(stream, counts):
            try:
                yield counts.line, line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                counts.bad(counts.line, f"no {stream.encoding.upper()}")
                yield counts.line, None
