"""Where a sweep keeps what: its log, its text, its runs while they last, the best of them, the report."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wenlu.base.config import from_dict
from wenlu.base.errors import UserError
from wenlu.base.files import lock_file, writing
from wenlu.base.log import read_rows
from wenlu.training.recipe import Recipe
from wenlu.training.sweep.space import SweepConfig


class SweepFolder:
    """The paths of a sweep, and the lock that keeps two processes from searching in one folder."""

    def __init__(self, root: Path | str):
        self.root = Path(root)
        self.log_file = self.root / "sweep.jsonl"
        self.data = self.root / "data"
        self.runs = self.root / "runs"
        self.best = self.root / "best"
        self.recipe_file = self.root / "recipe.toml"
        self.report_file = self.root / "sweep.html"
        self._lock_file = self.root / "lock"
        self._made: list[Path] | None = None

    def create(self) -> None:
        """Make the folder; refused where there is something already.

        What a process leaves that is killed before its first row does not count.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"cannot write {self.root}: it is a file, not a folder; choose another --out")
        if read_rows(self.log_file):
            raise UserError(f"{self.root} holds a sweep already: go on with it by --resume, or choose another --out")
        if self.root.exists() and not set(self.root.iterdir()) <= {self.log_file, self._lock_file}:
            raise UserError(f"{self.root} is not empty and holds no sweep: choose another --out")
        self._made = [path for path in (self.root, *self.root.parents) if not path.exists()]
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)

    def take_back(self) -> None:
        """Remove what this process made: a sweep that could not be set up leaves nothing behind."""
        if self._made is None:
            return
        for path in self.root.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        for path in self._made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()

    def begun(self) -> tuple[Recipe, SweepConfig]:
        """What the sweep was begun with."""
        first = next(iter(read_rows(self.log_file)), None)
        if first is None:
            raise UserError(f"{self.root} holds no sweep to resume: leave out --resume to begin one there")
        return from_dict(Recipe, first["recipe"]), from_dict(SweepConfig, first["sweep"])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process."""
        lock = lock_file(
            self._lock_file, f"another process is searching in {self.root}: wait for it, or choose another --out"
        )
        try:
            yield
        finally:
            os.close(lock)
