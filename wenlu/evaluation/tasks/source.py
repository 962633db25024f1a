"""Where the rows of tasks come from: files of a folder, also within archives, or data sets of the hub."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError, did_you_mean
from wenlu.data.reading.compression import OPENERS, opened
from wenlu.data.reading.counts import SourceCounts
from wenlu.data.reading.hub_rows import is_hub_id
from wenlu.data.reading.hub_rows import rows as hub_rows
from wenlu.data.reading.records import kind_of, records_of

HUB = "hub"
ENDINGS = ("", *OPENERS)
_KINDS = {str: "text", int: "whole number", list: "list"}
DEPTH = ("", "*/", "*/*/")
"""How deep files are looked for in the folder."""
MOST_NAMED = 12
"""Of what there is, in a refusal."""


@dataclass(frozen=True)
class Source:
    """A folder with sets of examples in it, or the hub."""

    folder: Path | None
    """None: the hub."""

    @classmethod
    def named(cls, name: str = "") -> Source:
        """What `--data` names: a folder, or hub; empty: the folder that $WENLU_DATA names."""
        name = name or os.environ.get("WENLU_DATA", "")
        if name == HUB:
            return cls(None)
        if not name:
            raise UserError(
                "where are the examples? Name their folder by --data FOLDER or $WENLU_DATA, --data hub to fetch them, "
                "or a TOML file of your own after --tasks"
            )
        if not Path(name).is_dir():
            raise UserError(f"no folder {name}: --data names the folder with sets of examples, or hub")
        return cls(Path(name))

    def rows(self, task: str, name: str, archive: str = "", hub: str = "") -> list[dict[str, Any]]:
        """The rows of a file (jsonl or JSON), or of a data set of the hub. Raises UserError for what is not there, and
        for anything in it that is no row."""
        if self.folder is None:
            if not hub:
                raise UserError(f"task {task} is not on the hub as it is known here: give its files by --data FOLDER")
            return list(hub_rows(f"hub:{hub}"))
        content = self.read(task, name, archive)
        return list(_jsonl(content, f"{name} of task {task}")) if name.endswith(".jsonl") else _json(content, name)

    def read(self, task: str, name: str, archive: str = "") -> bytes:
        """The content of a file, from the folder or from an archive in it."""
        found = self.find(name, archive)
        if found is None:
            within = f" (or {archive} with it inside)" if archive else ""
            raise UserError(
                f"task {task} needs {name}{within}, which is not in {self.folder}: name another folder by --data, or "
                "--data hub"
            )
        return found

    def find(self, name: str, archive: str = "") -> bytes | None:
        """The same; None where it is not there."""
        assert self.folder is not None
        for depth in DEPTH:
            for ending in ENDINGS:
                for file in sorted(self.folder.glob(depth + name + ending)):
                    if file.is_file():
                        with opened(file) as stream:
                            return stream.read()
        for depth in DEPTH if archive else ():
            for file in sorted(self.folder.glob(depth + archive)):
                members = _members(file)
                if inside := [member for member in members if f"/{member}".endswith(f"/{name}")]:
                    return members[min(inside, key=len)]
        return None

    def names(self, folder: str, archive: str) -> list[str]:
        """The names of the files in a folder of that name, wherever it is."""
        assert self.folder is not None
        found: set[str] = set()
        for depth in DEPTH:
            found |= {path.name for path in self.folder.glob(f"{depth}{folder}/*") if path.is_file()}
            for file in self.folder.glob(depth + archive):
                inside = (Path(member) for member in _members(file))
                found |= {path.name for path in inside if f"/{path.parent}".endswith(f"/{folder}")}
        return sorted(found)


def wanted(row: Mapping[str, Any], names: Sequence[str], where: str, kind: type = str) -> list[Any]:
    """What a row holds under these names, in their order. Raises UserError, with the row's place, where one is not
    there, or is of another kind."""
    for name in names:
        if name not in row:
            raise UserError(f"{where}: nothing under {name!r}.{instead_of(name, row)}")
        if not isinstance(row[name], kind) or isinstance(row[name], bool):
            raise UserError(f"{where}: {str(row[name])[:60]!r} under {name!r} is no {_KINDS[kind]}: mend it")
    return [row[name] for name in names]


def instead_of(name: str, known: Iterable[str]) -> str:
    """What there is where a name is not: the nearest, else the first of all."""
    names = list(map(str, known))
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return did_you_mean(name, names) or f" There are: {', '.join(names[:MOST_NAMED]) or 'none'}{more}"


def lines_of(content: bytes, encoding: str = "utf-8") -> list[str]:
    """The lines of a text. Other separators, such as U+2028 or cp1252's … in latin-1 (U+0085), end none."""
    lines = content.decode(encoding).split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


@lru_cache(maxsize=8)
def _members(file: Path) -> dict[str, bytes]:
    """The files in an archive: name → content."""
    with opened(file) as stream:
        if file.suffix == ".zip":
            with zipfile.ZipFile(io.BytesIO(stream.read())) as packed:
                return {one.filename: packed.read(one) for one in packed.infolist() if not one.is_dir()}
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            return {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}


def _jsonl(content: bytes, where: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}, line {number}: this is no JSON ({str(error)[:80]}): mend it") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}, line {number}: this is no JSON object: mend it")
        yield row


def _json(content: bytes, where: str) -> list[dict[str, Any]]:
    try:
        body = json.loads(content)
    except ValueError as error:
        raise UserError(f"{where} is no JSON ({str(error)[:80]}): mend it") from None
    if isinstance(body, dict):
        lists = [body[key] for key in ("examples", "data") if isinstance(body.get(key), list | dict)]
        body = lists[0] if lists else body
        body = list(body.values()) if isinstance(body, dict) else body
    if not isinstance(body, list) or not all(isinstance(row, dict) for row in body):
        raise UserError(f"{where} holds no list of JSON objects")
    return body


def rows_of_file(name: str, folder: Path) -> list[dict[str, Any]]:
    """The rows of the user's own file (jsonl, json, csv, tsv, parquet; compressed or not), or of hub:OWNER/NAME….

    Raises UserError where one row is bad: a figure over what was left is no figure of the file.
    """
    if is_hub_id(name):
        return list(hub_rows(name))
    file = folder / name
    if not file.is_file():
        raise UserError(f"no file {file}: name one beside the task's TOML file, or by a whole path")
    if kind_of(file) == ".jsonl":
        with opened(file) as stream:
            return list(_jsonl(stream.read(), str(file)))
    counts = SourceCounts()
    found = [row for _, row in records_of(file, counts)]
    if counts.bad_lines:
        raise UserError(f"{counts.first_bad} ({counts.bad_lines:,} bad rows in all): mend them")
    return found
