"""Results by example, kept in a file as they come: a killed evaluation goes on where it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError
from wenlu.base.log import JsonLines, counted, read_rows, say
from wenlu.evaluation.kinds import Row


class Results:
    """Rows by model, task and example; without a file they live in memory only.

    A row belongs to a key, a hash of all that it depends on. Raises UserError where the file holds a row of the same
    model, task and example under another key: nothing is overwritten.
    """

    def __init__(self, file: Path | None = None):
        self._path = file
        self._known: dict[tuple[str, str, str], Row] = {}
        if file is not None and file.is_dir():
            raise UserError(f"{file} is a folder: name a file for the results of examples")
        for row in read_rows(file) if file is not None else []:
            if not isinstance(row, dict) or not {"model", "task", "id", "key", "scores"} <= set(row):
                raise UserError(f"{file} holds something else than results of tasks: give another --out")
            self._known[row["model"], row["task"], row["id"]] = row
        if self._known:
            say(f"{counted(len(self._known), 'answer')} in {file} already: what is the same is not asked again")
        self._file = JsonLines(file) if file is not None else None

    def find(self, model: str, task: str, id: str, key: str) -> Row | None:
        """The row that is there already."""
        row = self._known.get((model, task, id))
        if row is not None and row["key"] != key:
            raise UserError(
                f"{self._path} holds results of task {task} with other prompts, shots or settings, or by an older "
                "wenlu: give another --out, or remove it"
            )
        return row

    def add(self, row: Row) -> None:
        """Keep a row, on the disk first."""
        if self._file is not None:
            self._file.write(**row)
        self._known[row["model"], row["task"], row["id"]] = row

    def close(self) -> None:
        """Flush to the disk."""
        if self._file is not None:
            self._file.sync()
            self._file.close()


def key_of(*parts: Any) -> str:
    """A hash of 16 hexadecimal digits of what a result depends on."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, default=repr).encode()).hexdigest()[:16]
