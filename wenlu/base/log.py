"""What is said while work goes on: the console (stderr), append-only JSON lines, progress bars."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from wenlu.base.errors import UserError
from wenlu.base.files import lock_file, make_folder, writing

console = Console(stderr=True, highlight=False)
_in_background = False


@contextmanager
def background() -> Iterator[None]:
    """For work that is one part of many: plain lines are left out for a while, and progress bars vanish with their end.

    Lines in a style of their own, which are warnings, are said all the same.
    """
    global _in_background
    before, _in_background = _in_background, True
    try:
        yield
    finally:
        _in_background = before


def say(text: str, style: str = "") -> None:
    """A line on stderr as it stands: paths in it are not folded, nor read as markup."""
    if _in_background and not style:
        return
    console.print(text, style=style, markup=False, emoji=False, soft_wrap=True)


def counted(number: int, noun: str) -> str:
    """`1 part`, `2 parts`; for nouns whose plural is made by an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def make_folder_of(file: Path) -> None:
    """The folder that a file is to lie in, which is said where it was not there: its name may have been mistyped."""
    if not file.parent.exists():
        make_folder(file.parent)
        say(f"made the folder {file.parent}")


class _TimeLeft(TimeRemainingColumn):
    """The time left by a clock that knows, else by the pace so far."""

    def __init__(self, left: Callable[[], float | None] | None):
        super().__init__(compact=True)
        self._left = left

    def render(self, task: Task) -> Text:
        left = self._left() if self._left else None
        if left is None or task.finished:
            return super().render(task)
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:" * bool(hours) + f"{minutes:02d}:{seconds:02d}", style="progress.remaining")


def progress(label: str, *, unit_counts: bool = True, left: Callable[[], float | None] | None = None) -> Progress:
    """A progress bar on stderr with the time left: what `left` says in seconds, else by the pace so far; add `note` to
    a task for figures beside it."""
    counts = [MofNCompleteColumn(separator="/")] if unit_counts else []
    return Progress(
        TextColumn(label),
        BarColumn(bar_width=14 if console.width >= 100 else 4),
        *counts,
        TextColumn("{task.fields[note]}"),
        _TimeLeft(left),
        TextColumn("left"),
        console=console,
        transient=_in_background,
        disable=_in_background and not console.is_terminal,
        refresh_per_second=4,
        redirect_stdout=False,
    )


@contextmanager
def status(what: str) -> Iterator[None]:
    """What is being done, shown on a terminal for as long as it takes: for work of which no part can be counted."""
    with nullcontext() if _in_background else console.status(Text(f"{what} …")):
        yield


class JsonLines:
    """A file of one JSON object a line, only ever appended to; a torn last line (a kill) is cut off when opened.

    It is held until it is closed. Raises UserError where another has it open, whose rows would be overwritten, and for
    a file that ends in what is no part of a row, which would be lost.
    """

    def __init__(self, path: Path):
        self.path = path
        make_folder_of(path)
        with writing(path):
            held = lock_file(path, f"another process is writing {path}: wait for it, or give another --out")
            self._file = os.fdopen(held, "r+b")
            whole = self._file.read()
            keep = whole.rfind(b"\n") + 1
            if whole[keep:].strip(b"\0") and whole[keep : keep + 1] != b"{":
                self._file.close()
                raise UserError(f"{path} holds something else than rows: give another --out")
            self._file.truncate(keep)
            self._file.seek(keep)

    def write(self, **row: Any) -> None:
        """Append one row."""
        with writing(self.path):
            self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            self._file.flush()

    def keep_while(self, wanted) -> None:
        """Drop every row from the first on for which `wanted(row)` is false (steps that a resume will redo)."""
        self._file.seek(0)
        position = 0
        for line in self._file:
            if not wanted(json.loads(line)):
                break
            position += len(line)
        self._file.truncate(position)
        self._file.seek(position)

    def sync(self) -> None:
        """Flush to the disk itself."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_rows(path: Path) -> list[Any]:
    """The whole rows of a file of JSON lines; an absent file has none."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        return [json.loads(line) for line in lines if line]
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): remove its bad line, or begin a new run") from None
