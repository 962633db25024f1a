"""Which reader reads which kind of file: a table from endings to readers."""

from collections.abc import Callable, Iterator
from pathlib import Path

from wenlu.base.errors import UserError
from wenlu.data.reading.books import read_epub, read_pdf
from wenlu.data.reading.compression import OPENERS
from wenlu.data.reading.counts import SourceCounts
from wenlu.data.reading.tables import read_csv, read_parquet, read_tsv
from wenlu.data.reading.text import read_html, read_jsonl, read_markdown, read_text

Reader = Callable[[Path, SourceCounts, str], Iterator[tuple[str, bool]]]
"""(file, counts, field) → (text, whether it is the document's last) of every piece of every document."""

READERS: dict[str, Reader] = {
    ".txt": read_text,
    ".md": read_markdown,
    ".jsonl": read_jsonl,
    ".html": read_html,
    ".htm": read_html,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".pdf": read_pdf,
    ".epub": read_epub,
}
IN_ITSELF = (".parquet", ".pdf", ".epub")
"""Compressed in themselves, and read here and there rather than from the beginning on."""


def is_known(file: Path) -> bool:
    """Whether a file in a folder is one to read, by its ending, behind which a compression may be named."""
    kind, packed = _kind(file)
    return kind in READERS and not (packed and kind in IN_ITSELF)


def refusal_of_json(file: Path) -> str:
    """Why a JSON file is not read, and the way out; "" for any other kind."""
    kind, packed = _kind(file)
    if kind != ".json":
        return ""
    plain = file.with_suffix("") if packed else file
    return (
        f"{file} is JSON, which is not read as text: write one object a line "
        f"(jq -c '.[]' {plain} > {plain.with_suffix('.jsonl')}), or name it .jsonl where it is so already"
    )


def reader_of(file: Path) -> Reader:
    """The reader of a file that is named itself: one without a known ending is text, but JSON is refused."""
    kind, packed = _kind(file)
    if packed and kind in IN_ITSELF:
        raise UserError(f"{file} cannot be read compressed: decompress it and name the result")
    if refusal := refusal_of_json(file):
        raise UserError(refusal)
    return READERS.get(kind, read_text)


def _kind(file: Path) -> tuple[str, bool]:
    """(ending in small letters without that of a compression, whether there is one)."""
    packed = file.suffix.lower() in OPENERS
    return (file.with_suffix("") if packed else file).suffix.lower(), packed
