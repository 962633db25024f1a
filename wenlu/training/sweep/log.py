"""The log of a sweep: every decision and every result a row, on the disk before anything follows from it."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

from wenlu.base.log import JsonLines, read_rows


class SweepLog:
    """The rows of SWEEP/sweep.jsonl, those of earlier processes among them, and the clock that stamps them."""

    def __init__(self, path: Path, began: float):
        self._file = JsonLines(path)
        self.rows = read_rows(path)
        self._began, self._before = began, self.rows[-1]["clock"] if self.rows else 0.0
        self._killed = bool(self.rows) and self.rows[-1]["event"] != "interrupted"

    def close(self) -> None:
        self._file.close()

    def clock(self) -> float:
        """Seconds of the sweep's life, pauses not included."""
        return self._before + monotonic() - self._began

    def went_on(self, seconds: float) -> None:
        """A run that was under way had taken so long before this process; after a kill no row knows of it."""
        if self._killed:
            self._before += max(0.0, seconds)
        self._killed = False

    def note(self, event: str, **facts: Any) -> dict[str, Any]:
        """Append a row."""
        row = {"event": event, **facts, "clock": round(self.clock(), 3)}
        self._file.write(**row)
        self._file.sync()
        self.rows.append(row)
        return row

    def find(self, event: str, **facts: Any) -> dict[str, Any] | None:
        """The first row of that kind."""
        wanted = {"event": event, **facts}
        return next((row for row in self.rows if all(row.get(key) == value for key, value in wanted.items())), None)

    @property
    def unit(self) -> str:
        """What losses are in."""
        text = self.find("text")
        return text["unit"] if text else "bits/byte"
