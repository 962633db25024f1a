"""Rows on the disk: named columns of whole numbers, as many a row as it has, read through memory maps."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wenlu.base.errors import UserError
from wenlu.base.files import sha256_file, verify_folder, whole_folder

DESCRIPTION = "rows.json"
VERSION = 1
"""Of the form of such a folder."""
Row = dict[str, np.ndarray]
"""Column → its numbers, int64, one-dimensional."""
_BLOCK = 1 << 20


class RowWriter:
    """Appends rows to `FOLDER/COLUMN.bin` (int32); `FOLDER/COLUMN.npy`, once closed, is where each row ends (int64)."""

    def __init__(self, folder: Path, columns: Iterable[str]):
        folder.mkdir(parents=True)
        self._folder = folder
        self._ends: dict[str, list[int]] = {name: [] for name in columns}
        self._files = {name: open(folder / f"{name}.bin", "wb") for name in self._ends}  # noqa: SIM115

    def add(self, row: dict[str, Any]) -> None:
        assert row.keys() == self._ends.keys(), "every row has every column"
        for name, values in row.items():
            array = np.atleast_1d(np.asarray(values))
            assert array.ndim == 1 and (not len(array) or abs(array).max() < 1 << 31)
            self._files[name].write(array.astype("<i4").data)
            self._ends[name].append((self._ends[name][-1] if self._ends[name] else 0) + len(array))

    def close(self) -> None:
        for name, ends in self._ends.items():
            self._files[name].close()
            (self._folder / f"{name}.npy").write_bytes(_npy(ends))

    def release(self) -> None:
        """For a writer that is given up."""
        for file in self._files.values():
            file.close()


def _npy(values: list[int]) -> bytes:
    """By way of memory: numpy's own writing to a file forgets why the system refused it."""
    buffer = io.BytesIO()
    np.save(buffer, np.array(values, dtype=np.int64))
    return buffer.getvalue()


class RowStore:
    """The rows of one split."""

    def __init__(self, folder: Path, columns: Iterable[str]):
        self.columns = tuple(columns)
        self._ends = {name: np.load(folder / f"{name}.npy") for name in self.columns}
        self._values = {name: _mapped(folder / f"{name}.bin") for name in self.columns}

    def __len__(self) -> int:
        return len(self._ends[self.columns[0]])

    def __getitem__(self, number: int) -> Row:
        """One row; int64, in memory of its own."""
        return {name: self.column(name, number) for name in self.columns}

    def column(self, name: str, number: int) -> np.ndarray:
        """One column of one row, int64."""
        ends = self._ends[name]
        start = int(ends[number - 1]) if number else 0
        return self._values[name][start : int(ends[number])].astype(np.int64)

    def lengths(self, name: str) -> np.ndarray:
        """How many numbers each row has in a column, int64 [rows]."""
        return np.diff(self._ends[name], prepend=0)


def _mapped(file: Path) -> np.ndarray:
    if not file.stat().st_size:
        return np.empty(0, dtype="<i4")
    return np.memmap(file, dtype="<i4", mode="r").view(np.ndarray)


@dataclass(frozen=True)
class Rows:
    """A folder of rows, opened."""

    folder: Path
    description: dict[str, Any]
    """The contents of rows.json: task, labels, columns, counts, fingerprint, …"""
    train: RowStore
    validation: RowStore | None

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over all columns and what the rows were made by."""
        return self.description["fingerprint"]


@contextmanager
def write_rows(
    folder: Path, splits: dict[str, Iterable[dict[str, Any]]], description: dict[str, Any]
) -> Iterator[Path]:
    """Write the rows of every split that has any, and `rows.json`; the folder is whole or absent.

    Within the context the rows are made, the folder is still a temporary one, and more may be put there.

    `description` is written at its end, so that what was counted meanwhile may be in it. It must say `columns`.
    """
    with whole_folder(folder) as temporary:
        for name, rows in splits.items():
            writer = RowWriter(temporary / name, description["columns"])
            try:
                for row in rows:
                    writer.add(row)
                writer.close()
            finally:
                writer.release()
        yield temporary
        body = {"version": VERSION, **description, "fingerprint": _fingerprint(temporary, description)}
        (temporary / DESCRIPTION).write_text(json.dumps(body, indent=1, ensure_ascii=False), encoding="utf-8")


def _fingerprint(folder: Path, description: dict[str, Any]) -> str:
    made_by = {name: description.get(name) for name in ("task", "labels", "tokenizer")}
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode())
    for file in sorted(p for p in folder.rglob("*") if p.suffix in (".bin", ".npy")):
        digest.update(f"{file.relative_to(folder).as_posix()} {sha256_file(file)}\n".encode())
    return digest.hexdigest()


def open_rows(folder: Path, *, verify: bool = False) -> Rows:
    """Open what `write_rows` wrote; with `verify` every byte is looked at. `UserError` where it is damaged."""
    problems = verify_folder(folder, contents=verify)
    if problems:
        raise UserError(f"{folder} is damaged ({'; '.join(problems[:3])}): begin the run anew with another --out")
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        version, columns = description["version"], description["columns"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} is damaged ({DESCRIPTION} cannot be read): begin the run anew") from None
    if version != VERSION:
        raise UserError(f"{folder} has the form of version {version}, this wenlu reads {VERSION}: begin the run anew")
    validation = folder / "validation"
    held_out = RowStore(validation, columns) if validation.is_dir() else None
    return Rows(folder, description, RowStore(folder / "train", columns), held_out)
