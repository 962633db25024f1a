"""Pairs of texts, such as translations: tables, records, or two files whose lines belong together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError
from wenlu.data.reading.counts import SourceCounts
from wenlu.data.reading.records import kind_of, records_of, text_lines
from wenlu.data.reading.tables import table_rows
from wenlu.data.rows.config import Example, RowsConfig
from wenlu.data.rows.tally import Tally
from wenlu.tokenization.tokenizer import Tokenizer

NAMES = (
    ("source", "target"),
    ("src", "tgt"),
    ("input", "output"),
    ("document", "summary"),
    ("text", "summary"),
    ("prompt", "response"),
)
RECORDS = (".json", ".jsonl", ".csv", ".parquet")
Pair = tuple[str, Any, Any]
"""Where it stands, source and target."""


def read(files: list[Path], config: RowsConfig, tally: Tally) -> Iterator[Example]:
    """The pairs of files; what is malformed is counted."""
    for where, source, target in _pairs(files, config, tally):
        tally.records += 1
        if not isinstance(source, str) or not isinstance(target, str):
            tally.drop(where, "a source or target that is no text")
        elif not source.strip() or not target.strip():
            tally.drop(where, "an empty source" if not source.strip() else "an empty target")
        else:
            tally.noted["sources that are their own target"] += source == target
            yield Example(where, [source, target], source)
    tally.noted = +tally.noted


def _pairs(files: list[Path], config: RowsConfig, tally: Tally) -> Iterator[Pair]:
    plain = [file for file in files if kind_of(file) not in (*RECORDS, ".tsv") and not _has_tabs(file)]
    if not plain:
        for file in files:
            yield from _of_file(file, config, tally)
    elif len(files) == 2 == len(plain):
        tally.kinds["pairs of lines"] = 0
        yield from _aligned(*files, tally)
    else:
        raise UserError(
            f"{plain[0]} has no tabs, so its lines are one side of pairs: name two such files, the source's first, or "
            "files of pairs (tsv, jsonl, csv)"
        )


def _has_tabs(file: Path) -> bool:
    """Whether most of the first lines have one."""
    lines = [text for _, text in itertools.islice(text_lines(file, SourceCounts()), 20) if text]
    return sum("\t" in line for line in lines) * 2 > len(lines)


def _aligned(source: Path, target: Path, tally: Tally) -> Iterator[Pair]:
    other = SourceCounts()
    sides = itertools.zip_longest(text_lines(source, tally.source), text_lines(target, other))
    for left, right in sides:
        if left is None or right is None:
            short, long, count = (source, target, right) if left is None else (target, source, left)
            more = count[0] + sum(1 for _ in sides) - 1
            raise UserError(
                f"{short} has fewer lines than {long} ({count[0] - 1:,} and {more + 1:,}): their lines do not belong "
                "together; mend them, or take two files of the same text"
            )
        if left[1] is None:  # counted where it was read
            continue
        if right[1] is None:
            tally.records += 1
            tally.drop(f"{target}:{right[0]}", "a target that cannot be decoded")
            continue
        tally.kinds["pairs of lines"] += 1
        yield f"{source}:{left[0]}", left[1], right[1]


def _of_file(file: Path, config: RowsConfig, tally: Tally) -> Iterator[Pair]:
    if kind_of(file) in RECORDS:
        yield from _recorded(file, config, tally)
        return
    tally.source.begin(file)
    rows = table_rows(file, tally.source, "\t", quoted=False)
    first = next(rows, None)
    header = [name.strip() for name in first or ()]
    names = config.fields or next((pair for pair in NAMES if set(pair) <= {name.lower() for name in header}), ())
    columns = tuple(_index(file, header, name) for name in names) or (0, 1)
    for row in rows if names or first is None else itertools.chain([first], rows):
        if len(row) < 2:
            raise UserError(f"{file} has one column only: a source and a target are wanted, with a tab between")
        tally.kinds["rows of a table"] += 1
        yield f"{file}:{tally.source.line}", row[columns[0]], row[columns[1]]


def _index(file: Path, header: list[str], name: str) -> int:
    for number, known in enumerate(header):
        if name in (known, known.lower()):
            return number
    raise UserError(f"{file} has no column {name!r}, it has {', '.join(map(repr, header[:20]))}: see --rows.fields")


def _recorded(file: Path, config: RowsConfig, tally: Tally) -> Iterator[Pair]:
    names = config.fields
    for line, record in records_of(file, tally.source):
        where = f"{file}:{line}"
        record = record["translation"] if isinstance(record.get("translation"), dict) else record
        if not names:
            names = next((pair for pair in NAMES if set(pair) <= record.keys()), ())
            if not names:
                raise UserError(
                    f"{where}: which fields are source and target? It has {', '.join(map(repr, record))}: "
                    "name them by --rows.fields SOURCE TARGET"
                )
        if missing := [name for name in names if name not in record]:
            tally.records += 1
            tally.drop(where, f"no field {missing[0]!r}")
            continue
        tally.kinds[f"{names[0]} and {names[1]}"] += 1
        yield where, record[names[0]], record[names[1]]


def encoded(
    example: Example, tokenizer: Tokenizer, context: int, tally: Tally, prefix: str = ""
) -> dict[str, Any] | None:
    """`ids` and `targets` of a pair for an encoder and decoder, each with its end token, at most `context` long."""
    sides = [tokenizer.encode(prefix + example.content[0]), tokenizer.encode(example.content[1])]
    tally.truncated += max(map(len, sides)) > context - 1
    source, target = ([*ids[: context - 1], tokenizer.eos_id] for ids in sides)
    return {"ids": source, "targets": target}
