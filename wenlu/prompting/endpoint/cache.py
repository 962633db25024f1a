"""Answers that were paid for, kept: a file for each request, whole or absent."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wenlu.base.files import atomic_write


def request_key(address: str, body: Mapping[str, Any]) -> str:
    """Hex sha256 of where a request goes and of all that it says, whatever the order of its fields."""
    return hashlib.sha256(_canonical({"address": address, "body": body}).encode()).hexdigest()


class Cache:
    """What requests were answered, in memory and, where there is a folder, on disk, for processes side by side too.

    A file that cannot be read, or was written for another request, counts as absent and is counted in `damaged`.
    """

    def __init__(self, folder: Path | None = None):
        self.folder, self.damaged = folder, 0
        self._memory: dict[str, Any] = {}
        self._lock = threading.Lock()

    def find(self, address: str, body: Mapping[str, Any]) -> Any:
        """The answer to a request; None where it is not known."""
        key = request_key(address, body)
        with self._lock:
            if key in self._memory:
                return self._memory[key]
        file = self._file(key)
        if file is None or not file.is_file():
            return None
        try:
            row = json.loads(file.read_text(encoding="utf-8"))
            whole = request_key(row["address"], row["body"]) == key
            answer = row["answer"] if whole else None
        except (OSError, ValueError, LookupError, TypeError):
            answer = None
        with self._lock:
            if answer is None:
                self.damaged += 1
            else:
                self._memory[key] = answer
        return answer

    def keep(self, address: str, body: Mapping[str, Any], answer: Any, when: float) -> None:
        """Keep an answer. when: seconds since 1970, for whoever reads the file."""
        key = request_key(address, body)
        with self._lock:
            self._memory[key] = answer
        if (file := self._file(key)) is not None:
            atomic_write(
                file, _canonical({"address": address, "body": body, "answer": answer, "when": round(when)}) + "\n"
            )

    def __str__(self) -> str:
        return "memory (give a cache folder to keep them longer)" if self.folder is None else str(self.folder)

    def _file(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / key[:2] / f"{key}.json"


def _canonical(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, sort_keys=True)
