"""Where a run keeps what: a Transformers folder at its root, everything of ours under `wenlu/`."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from wenlu.base.config import to_dict
from wenlu.base.errors import UserError
from wenlu.base.files import atomic_write, lock_file, make_folder, sweep
from wenlu.base.log import read_rows
from wenlu.training.recipe import Recipe, recipe_from


class RunFolder:
    """The paths of a run, and the lock that keeps two processes from training in one folder."""

    def __init__(self, root: Path | str):
        self.root = Path(root)
        self.own = self.root / "wenlu"
        self.recipe_file = self.own / "recipe.json"
        self.metrics_file = self.own / "metrics.jsonl"
        self.events_file = self.own / "events.jsonl"
        self.report_file = self.own / "report.html"
        self.checkpoints = self.own / "checkpoints"
        self.data = self.own / "data"
        self._lock: int | None = None
        self._made: list[Path] | None = None

    def exists(self) -> bool:
        return self.recipe_file.exists()

    def create(self, recipe: Recipe) -> None:
        """Begin a new run: its folder and its recipe; refused where there is something already.

        What a process leaves that is killed before its recipe is written does not count.
        """
        if self.exists():
            raise UserError(f"{self.root} holds a run already: go on with it by --resume, or choose another --out")
        if self.root.exists() and not set(self.root.rglob("*")) <= {self.own, *self.own.glob(".recipe.json.*.tmp")}:
            raise UserError(f"{self.root} is not empty and holds no run: choose another --out")
        self._made = [path for path in (self.root, *self.root.parents) if not path.exists()]
        try:
            make_folder(self.own)
            self.write_recipe(recipe)
        except UserError:
            self.take_back()
            raise

    def chosen(self) -> dict[str, dict[str, Any]] | None:
        """What was planned for a run of a given length in time, or follows from the rows of one that tunes.

        By section and field; None before there is a plan.
        """
        events = read_rows(self.events_file)
        return next((row["chosen"] for row in events if "chosen" in row), None)

    def write_recipe(self, recipe: Recipe) -> None:
        atomic_write(self.recipe_file, json.dumps(to_dict(recipe), indent=1, ensure_ascii=False))

    def take_back(self) -> None:
        """Remove what `create` made, with all that is in it: a run that could not be set up leaves nothing behind."""
        if self._made is None:
            return
        shutil.rmtree(self.own, ignore_errors=True)
        for path in self._made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        self._made = None

    def recipe(self) -> Recipe:
        """The recipe that the run was begun with."""
        if not self.exists():
            raise UserError(f"{self.root} holds no run to resume: leave out --resume to begin one there")
        try:
            return recipe_from(json.loads(self.recipe_file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise UserError(f"{self.recipe_file} is damaged ({error}): begin the run anew with another --out") from None

    def sweep(self) -> None:
        """Remove what killed writers left half-made; for whoever holds the lock."""
        for folder in (self.root, self.own, self.checkpoints):
            sweep(folder)

    def lock(self) -> None:
        """Hold the folder for this process until it ends."""
        refusal = f"another process is training in {self.root}: wait for it, or choose another --out"
        self._lock = lock_file(self.own / "lock", refusal)

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
