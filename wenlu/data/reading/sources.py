"""Documents from files of many kinds, folders, patterns, data sets of the hub and standard input, in bounded memory."""

import contextlib
import glob
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wenlu.base.errors import UserError
from wenlu.base.files import writing
from wenlu.base.log import counted
from wenlu.data.reading.compression import OPENERS, opened
from wenlu.data.reading.counts import SourceCounts
from wenlu.data.reading.encodings import Utf8
from wenlu.data.reading.formats import READERS, is_known, reader_of, refusal_of_json
from wenlu.data.reading.hub_rows import fetch, is_hub_id
from wenlu.data.reading.pieces import CHUNK, LONGEST

MADE_HERE = {
    "data.json": {"version", "fingerprint", "tokenizer", "split"},
    "wenlu/recipe.json": {"data", "model", "training"},
    "sweep.jsonl": {"event", "recipe", "sweep"},
}
"""Files by which prepared data, a run and a sweep are known, and what stands in them (in rows: in the first)."""
LONGEST_DESCRIPTION = 1 << 26
"""Bytes beyond which such a file is none of ours."""


@dataclass(frozen=True)
class Piece:
    """A part of a document, cut where no token of byte BPE or Unigram could span."""

    document: int
    text: str
    last: bool
    """Whether it is the document's last part."""


def size_in_utf8(text: str) -> int:
    """Bytes of a text in UTF-8; that ASCII has as many as characters is known without a look at them."""
    return len(text) if text.isascii() else len(text.encode())


def list_files(paths: tuple[str, ...], counts: SourceCounts) -> list[Path]:
    """The files that paths stand for: patterns are resolved as a shell would, folders searched; what is hidden in them
    is left out, and so is, from folders, what is of no known kind, and what wenlu made itself."""
    files = []
    for name in paths:
        found = [name] if os.path.lexists(name) or not glob.has_magic(name) else sorted(glob.glob(name, recursive=True))
        if not found:
            raise UserError(f"no file matches {name}: check the pattern")
        made = len(counts.made_here)
        inside = [file for path in found for file in _files_of(path, counts)]
        if not inside and len(counts.made_here) > made:
            raise UserError(f"{name} holds no text but what wenlu made (data, runs, sweeps): name the texts themselves")
        if not inside:
            for refusal in (refusal_of_json(file) for path in found for file in _inside(Path(path), SourceCounts())):
                if refusal:
                    raise UserError(f"{name} holds no text; {refusal}")
            kinds, packed = ", ".join(READERS), ", ".join(OPENERS)
            raise UserError(f"{name} holds no text: it has no file ending in {kinds} (text also in {packed})")
        files += inside
    return files


def _files_of(name: str, counts: SourceCounts) -> list[Path]:
    path = Path(name)
    if os.path.isdir(name):
        inside = _inside(path, counts)
        found = [p for p in inside if is_known(p) and p.is_file()]
        counts.skipped_files += len(inside) - len(found)
        return found
    if os.path.exists(name):
        reader_of(path)  # which refuses what is not read
        return [path]
    if is_hub_id(name):
        raise UserError(f"{name} is fetched first: read what `spooled` makes of the paths")
    raise UserError(f"no file or folder {name}: check the path")


def _inside(folder: Path, counts: SourceCounts) -> list[Path]:
    """Everything below a folder but folders, sorted; what is hidden, folders that are links, and those that wenlu made
    are counted."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} may not be read ({error.strerror}): change its permissions, or move it")

    found = []
    for root, folders, names in os.walk(folder, onerror=refuse):
        if _is_made_here(Path(root)):
            counts.made_here.append(root)
            folders.clear()
            continue
        linked = [name for name in folders if os.path.islink(os.path.join(root, name))]
        counts.skipped_files += sum(name.startswith(".") or name in linked for name in [*folders, *names])
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _is_made_here(folder: Path) -> bool:
    """Whether a folder is one that wenlu made, prepared data, a run or a sweep: by what its files hold, for a text may
    have any name."""
    for name, wanted in MADE_HERE.items():
        with contextlib.suppress(OSError, ValueError, RecursionError):
            if (folder / name).stat().st_size <= LONGEST_DESCRIPTION:
                with open(folder / name, encoding="utf-8") as file:
                    held = json.loads(file.readline() if name.endswith(".jsonl") else file.read())
                if isinstance(held, dict) and wanted <= set(held):
                    return True
    return False


@contextlib.contextmanager
def spooled(paths: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The same paths, those that can be read only once (`-` for standard input, pipes, the hub) copied to temporary
    files.

    A copy is jsonl where its first line is a JSON object, else txt. Errors raised inside name the path that was given.
    """
    once = [path for path in dict.fromkeys(paths) if path == "-" or is_hub_id(path) or _is_pipe(path)]
    if not once:
        yield paths
        return
    with tempfile.TemporaryDirectory(prefix="wenlu-") as folder:
        copies: dict[str, str] = {}
        try:
            for number, path in enumerate(once):
                copies[path] = str(Path(folder) / str(number))
                copies[path] = str(_spool(path, Path(copies[path])))
            yield tuple(copies.get(path, path) for path in paths)
        except UserError as error:
            message = str(error)
            for path, copy in copies.items():
                message = message.replace(copy, "stdin" if path == "-" else path)
            raise UserError(message) from error


def _is_pipe(path: str) -> bool:
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _spool(path: str, copy: Path) -> Path:
    if is_hub_id(path):
        return fetch(path, copy.with_suffix(".jsonl"))
    with contextlib.ExitStack() as stack:
        stream = sys.stdin.buffer if path == "-" else stack.enter_context(opened(Path(path)))
        stack.enter_context(writing(copy))
        out = stack.enter_context(open(copy, "wb"))
        while block := stream.read(CHUNK):
            out.write(block)
    return copy.rename(copy.with_suffix(".jsonl" if _begins_with_an_object(copy) else ".txt"))


def _begins_with_an_object(copy: Path) -> bool:
    with copy.open("rb") as stream:
        raw = Utf8(stream, copy).block(LONGEST)
        first, end, _ = raw.partition(b"\n")
        if not end and first.lstrip().startswith(b"{"):
            first += stream.readline()
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def read_documents(
    paths: tuple[str, ...], counts: SourceCounts | None = None, *, field: str = "text", max_bad: float = 0.01
) -> Iterator[Piece]:
    """All documents of all paths, in order, in pieces. A text, page or book is a document; so is a row of jsonl, csv,
    tsv and parquet, whose text stands under `field`.

    A line that cannot be decoded, or a row without a text, is counted and left out; where more than `max_bad` of a
    file's lines are bad, the file is refused. So is a file without any text that is named itself; one of a folder or a
    pattern is counted, unless there is no other.
    """
    if not 0 <= max_bad <= 1:
        raise UserError(f"max-bad must lie in [0, 1], not {max_bad}")
    counts = SourceCounts() if counts is None else counts
    document, named, files = 0, {Path(path) for path in paths}, list_files(paths, counts)
    for file in files:
        counts.begin(file)
        before = counts.lines, counts.bad_lines
        first = document
        for text, last in reader_of(file)(file, counts, field):
            counts.bytes += size_in_utf8(text)
            yield Piece(document, text, last)
            document += last
            counts.documents += last
        _judge(file, counts, before, max_bad, some=document > first)
        if document == first:
            counts.without_text()
            if file in named:
                raise UserError(f"{file} {counts.lack}")
    if files and not document:
        raise UserError(f"no text in {', '.join(paths)} ({counted(len(files), 'file')}): {file} {counts.lack}")


def _judge(file: Path, counts: SourceCounts, before: tuple[int, int], max_bad: float, *, some: bool) -> None:
    """Refuse a file of which too many lines are bad; `some`: others hold text, so that more may be allowed."""
    lines, bad = counts.lines - before[0], counts.bad_lines - before[1]
    if bad > max_bad * lines:
        are = "is" if bad == 1 else "are"
        more = f"or allow more with --max-bad {min(1.0, bad / lines + 0.01):.2f}" if some else "or leave it out"
        raise UserError(
            f"{bad:,} of {counted(lines, 'line')} {are} bad, more than {max_bad:.2%}, the first at {counts.first_bad}; "
            f"mend the file, {more}"
        )
