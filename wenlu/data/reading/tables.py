"""csv, tsv and parquet: every row is a document, the text of one column."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from wenlu.base.errors import UserError
from wenlu.data.reading import text as limits
from wenlu.data.reading.counts import SourceCounts
from wenlu.data.reading.extras import extra
from wenlu.data.reading.pieces import in_pieces
from wenlu.data.reading.text import lines_of, no_character, row_of, text_stream

BATCH = 1024
"""Rows of parquet that become Python's strings at a time."""


def read_csv(file: Path, counts: SourceCounts, field: str) -> Iterator[tuple[str, bool]]:
    """Comma-separated, the first row naming the columns; quotes as in RFC 4180."""
    return _read(file, counts, field, ",")


def read_tsv(file: Path, counts: SourceCounts, field: str) -> Iterator[tuple[str, bool]]:
    """Tab-separated, else like csv."""
    return _read(file, counts, field, "\t")


def _read(file: Path, counts: SourceCounts, field: str, delimiter: str) -> Iterator[tuple[str, bool]]:
    rows = table_rows(file, counts, delimiter, used=lambda header: [_column(file, header, field)])
    header = next(rows, None)
    if header is None:
        return
    column = _column(file, header, field)
    for row in rows:
        yield from in_pieces([row_of(row[column], counts)])


def table_rows(
    file: Path,
    counts: SourceCounts,
    delimiter: str,
    quoted: bool = True,
    used: Callable[[list[str]], list[int]] | None = None,
) -> Iterator[list[str]]:
    """The rows of a table, the first one first, which says how many columns there are; bad ones are counted.

    `used`: from the first row, the columns of which texts are read, and which must be decoded; otherwise all are. Not
    `quoted`: quotes are characters like others, as in tables of sentences with tabs between.
    """
    csv.field_size_limit(limits.LONGEST_ROW)
    with text_stream(file, counts) as stream:
        lines = (line.decode("utf-8", "surrogateescape") for line in lines_of(stream, counts))
        reader = csv.reader(
            lines, delimiter=delimiter, strict=True, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        )
        try:
            header = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{file} does not begin with a row of column names ({error})") from None
        if header is None:
            return
        yield header
        columns = used(header) if used else range(len(header))
        while True:
            before = counts.line
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                # What an open quote swallows may be the rest of the file: every line of it counts.
                counts.bad(before + 1, f"no row ({error})", counts.line - before)
                continue
            if not row:
                continue
            if len(row) != len(header):
                counts.bad(before + 1, f"{len(row)} columns instead of {len(header)}", counts.line - before)
            elif any(no_character(row[column]) for column in columns):
                counts.bad(before + 1, f"no {stream.encoding.upper()}", counts.line - before)
            else:
                yield row


def _column(file: Path, names: list[str], field: str) -> int:
    """Where the one column `field` is; names are compared without the space around them."""
    names = [name.strip() for name in names]
    if field not in names:
        shown = ", ".join(map(repr, names[:20])) + (", …" if len(names) > 20 else "")
        raise UserError(f"{file} has no column {field!r}, it has {shown}: name the one that holds the text by --field")
    if names.count(field) > 1:
        raise UserError(f"{file} has {names.count(field)} columns {field!r}: rename all but the one of the text")
    return names.index(field)


def read_parquet(file: Path, counts: SourceCounts, field: str) -> Iterator[tuple[str, bool]]:
    """One column of text, a row group at a time."""
    arrow = extra("pyarrow", "parquet", str(file))
    parquet = extra("pyarrow.parquet", "parquet", str(file))
    try:
        with open(file, "rb") as stream, parquet.ParquetFile(stream) as table:
            column = table.schema_arrow.field(_column(file, table.schema_arrow.names, field))
            kind = column.type
            if not _is_text(arrow.types, kind):
                raise UserError(f"column {field!r} of {file} holds {kind}, not text: name another by --field")
            for batch in table.iter_batches(BATCH, columns=[column.name]):
                for raw in _bytes_of(arrow, batch.column(0)):
                    counts.lines += 1
                    yield from _parquet_row(raw, counts)
    except PermissionError:
        raise UserError(f"{file} may not be read: change its permissions") from None
    except (arrow.ArrowException, OSError) as error:
        raise UserError(f"{file} is damaged, or no parquet ({str(error)[:100]}): fetch it again") from None


def _is_text(types, kind) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _bytes_of(arrow, column) -> list[bytes | None]:
    """The raw strings, since nothing assures that they are UTF-8."""
    if arrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(arrow.large_binary()).to_pylist()


def _parquet_row(raw: bytes | None, counts: SourceCounts) -> Iterator[tuple[str, bool]]:
    try:
        text = (raw or b"").decode("utf-8")
    except UnicodeDecodeError:
        counts.bad(counts.line, "no UTF-8")
    else:
        yield from in_pieces([row_of(text, counts)])
