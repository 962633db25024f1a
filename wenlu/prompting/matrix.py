"""What many prompts came to on many examples, kept on disk: nothing is computed twice, nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wenlu.base.config import to_dict
from wenlu.base.errors import UserError
from wenlu.base.log import JsonLines, read_rows
from wenlu.prompting.artifact import Artifact, Shown
from wenlu.prompting.backend import Spent
from wenlu.prompting.examples import Example, content_id, distinct
from wenlu.prompting.trial import Cell, bare, try_on

if TYPE_CHECKING:
    from wenlu.prompting.backend import Backend
    from wenlu.prompting.similarity import Embed

AT_ONCE = 256
"""Examples of one prompt that are computed between two writes to the disk."""

Advance = Callable[[int], None]
"""Told how many cells more are there."""


class Matrix:
    """Prompts × examples: a file of JSON lines, each a prompt's key, an example's id, and what came of the two.

    >>> matrix = Matrix("work/matrix.jsonl", FolderBackend("runs/book"))
    >>> matrix.values([prompt, other], examples).mean(1)
    """

    def __init__(self, path: Path | str, backend: Backend, embed: Embed | None = None):
        """Goes on with the file where there is one. Raises UserError where it is no such file."""
        self.path, self.backend, self.embed = Path(path), backend, embed
        self._cells: dict[tuple[str, str, str], Cell] = {}
        self.spent = Spent()
        """On all cells, whatever process asked for them."""
        for row in read_rows(self.path):
            try:
                key = row.pop("prompt"), row.pop("example"), row.pop("content")
                row.pop("name")
                self.spent += Spent(**row.pop("spent", {}))
                self._cells[key] = Cell(**row | {"probabilities": tuple(row["probabilities"])})
            except (TypeError, KeyError, AttributeError):
                raise UserError(f"{self.path} is no matrix of prompts and examples: give another file") from None
        self._keys: dict[int, tuple[Artifact, str]] = {}
        self.found, self.computed = len(self._cells), 0
        """Cells that were in the file, and those that have been added since."""

    def key(self, prompt: Artifact) -> str:
        """Of a prompt before this backend: 16 hexadecimal digits for all that its answers depend on."""
        if id(prompt) not in self._keys:
            whole = {"prompt": to_dict(bare(prompt)), "backend": self.backend.fingerprint}
            self._keys[id(prompt)] = prompt, content_id(whole)  # the prompt too, so that its id stays its own
        return self._keys[id(prompt)][1]

    def cells(
        self, prompts: Sequence[Artifact], examples: Sequence[Example], advance: Advance | None = None
    ) -> list[list[Cell]]:
        """Of each prompt on each example; what is not there is computed and written down, prompt by prompt.

        Raises UserError for two examples of one id, and as `trial.try_on`.
        """
        examples = distinct(examples)
        contents = [content_id(to_dict(Shown.of(example))) for example in examples]
        file = JsonLines(self.path)
        try:
            for prompt in prompts:
                self._fill(prompt, examples, contents, file, advance)
        finally:
            file.close()
        return [
            [self._cells[self.key(prompt), example.id, content] for example, content in zip(examples, contents)]
            for prompt in prompts
        ]

    def values(
        self, prompts: Sequence[Artifact], examples: Sequence[Example], advance: Advance | None = None
    ) -> np.ndarray:
        """The same as numbers, [prompts, examples]: 1 right, 0 wrong."""
        return np.array([[cell.value for cell in row] for row in self.cells(prompts, examples, advance)])

    def _fill(
        self, prompt: Artifact, examples: list[Example], contents: list[str], file: JsonLines, advance: Advance | None
    ) -> None:
        key = self.key(prompt)
        open_ = [
            (example, content)
            for example, content in zip(examples, contents)
            if (key, example.id, content) not in self._cells
        ]
        if advance and len(open_) < len(examples):
            advance(len(examples) - len(open_))
        for start in range(0, len(open_), AT_ONCE):
            part = open_[start : start + AT_ONCE]
            before = self.backend.spent
            found = try_on(prompt, self.backend, [example for example, _ in part], self.embed)
            spent = self.backend.spent.since(before)
            self.spent, cost = self.spent + spent, {"spent": asdict(spent)}
            for (example, content), cell in zip(part, found, strict=True):
                row: dict[str, Any] = {"prompt": key, "name": prompt.name, "example": example.id, "content": content}
                file.write(**row, **asdict(cell), **cost)
                cost = {}  # With the first of those that were asked for together.
                self._cells[key, example.id, content] = cell
            file.sync()
            self.computed += len(part)
            if advance:
                advance(len(part))
