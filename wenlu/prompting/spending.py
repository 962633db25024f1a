"""What answers have cost in tokens, money and seconds, whatever process asked for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from wenlu.prompting.backend import Spent

if TYPE_CHECKING:
    from wenlu.base.log import JsonLines
    from wenlu.prompting.backend import Backend


class Tally:
    """Counts what is spent, row by row of a file: those of earlier processes are read, and new ones written."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """clock: seconds."""
        self.spent, self.seconds, self.clock = Spent(), 0.0, clock

    def read(self, row: Mapping[str, Any]) -> None:
        """Add what a row tells."""
        self.spent += Spent(**row["spent"])
        self.seconds += row.get("seconds", 0.0)

    @contextmanager
    def counted(self, backend: Backend, file: JsonLines, **more: Any) -> Iterator[None]:
        """What is spent meanwhile is a row of the file, with `more`, and added, whatever comes in between."""
        before, began = backend.spent, self.clock()
        try:
            yield
        finally:
            spent = backend.spent.since(before)
            if spent != Spent():
                row = {"spent": asdict(spent), "seconds": round(self.clock() - began, 3)}
                file.write(event="spent", **row, **more)
                self.read(row)
