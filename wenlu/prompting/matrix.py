"""What many prompts came to on many examples, kept on disk: nothing is computed twice, nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wenlu.base.config import from_dict, to_dict
from wenlu.base.errors import UserError
from wenlu.base.log import JsonLines, read_rows
from wenlu.prompting.artifact import Artifact, Shown, SplitMark
from wenlu.prompting.backend import Failed
from wenlu.prompting.calibrate import Prior
from wenlu.prompting.examples import Example, content_id, distinct
from wenlu.prompting.spending import Tally
from wenlu.prompting.trial import Cell, answered, bare, learned, lost, too_many, try_on, unlearned

if TYPE_CHECKING:
    from wenlu.prompting.backend import Backend
    from wenlu.prompting.similarity import Embed

FORM = 2
"""Of judging: what an older wenlu judged otherwise is asked anew."""
AT_ONCE = 256
"""Examples of one prompt that are computed between two writes to the disk."""

Advance = Callable[[int], None]
"""Told how many cells more are there."""


def complete(cells: Sequence[Sequence[Cell]], examples: Sequence[Example]) -> list[int]:
    """The numbers of the examples that every prompt has answered (`trial.answered`); cells: [prompts][examples]."""
    failed = {number: cell.failed for row in cells for number, cell in enumerate(row) if cell.failed}
    return answered(failed, examples)


class Matrix:
    """Prompts × examples: a file of JSON lines, each a prompt's key, an example's id, and what came of the two; and
    the means that batch calibration takes off.

    >>> matrix = Matrix("work/matrix.jsonl", FolderBackend("runs/book"))
    >>> matrix.values([prompt, other], examples).mean(1)
    """

    def __init__(
        self,
        path: Path | str,
        backend: Backend,
        embed: Embed | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Goes on with the file where there is one. Raises UserError where it is no such file."""
        self.path, self.backend, self.embed = Path(path), backend, embed
        self._cells: dict[tuple[str, str, str], Cell] = {}
        self.tally = Tally(clock)
        """Of all cells, whatever process asked for them."""
        self._failed: dict[tuple[str, str, str], Cell] = {}
        """Those that failed now: another `Matrix` tries them again."""
        self._priors: dict[tuple[str, str], Prior] = {}
        """Of a prompt without its mean, learned from a set of examples."""
        self.tried = 0
        """Cells that were asked for by whatever process, those that failed among them."""
        for row in read_rows(self.path):
            try:
                if row.get("event") == "prior":
                    self._priors[row["prompt"], row["split"]] = from_dict(Prior, row["prior"])
                    continue
                if row.get("event") == "spent":
                    self.tally.read(row)
                self.tried += row.get("event") != "spent"
                if row.get("event") == "spent" or row.get("failed"):
                    continue
                key = row.pop("prompt"), row.pop("example"), row.pop("content")
                row.pop("name")
                self._cells[key] = Cell(**row | {"probabilities": tuple(row["probabilities"])})
            except (TypeError, KeyError, AttributeError):
                raise UserError(f"{self.path} is no matrix of prompts and examples: give another file") from None
        self._keys: dict[int, tuple[Artifact, str]] = {}
        self._file: JsonLines | None = None
        self.found, self.computed = len(self._cells), 0
        """Cells that were in the file, and those that have been added since."""

    @contextmanager
    def held(self) -> Iterator[JsonLines]:
        """The file to write to, which no other process writes to meanwhile, also between one `cells` and the next.
        Raises UserError where one does."""
        if self._file is not None:
            yield self._file
            return
        self._file = JsonLines(self.path)
        try:
            yield self._file
        finally:
            self._file.close()
            self._file = None

    def key(self, prompt: Artifact) -> str:
        """Of a prompt before this backend: 16 hexadecimal digits for all that its answers depend on."""
        if id(prompt) not in self._keys:
            whole = {"form": FORM, "prompt": to_dict(bare(prompt)), "backend": self.backend.fingerprint}
            self._keys[id(prompt)] = prompt, content_id(whole)  # the prompt too, so that its id stays its own
        return self._keys[id(prompt)][1]

    def fitted(self, prompt: Artifact, examples: Sequence[Example]) -> Artifact:
        """The prompt with the mean that batch calibration takes off, where it needs one: as the file has it for these
        examples, or learned now (`trial.learned`); what it comes to on them is then there too."""
        if unlearned(prompt := self.known(prompt, examples)):
            examples, (key, split) = distinct(examples), self._place(prompt, examples)
            with self.held() as file:
                with self.tally.counted(self.backend, file):
                    whole, cells = learned(prompt, self.backend, examples, self.embed)
                self._keep(whole, [(one, _content(one)) for one in examples], cells, file)
                file.write(event="prior", prompt=key, split=split, prior=to_dict(whole.prior))
                file.sync()
            self._priors[key, split] = whole.prior
            return whole
        return prompt

    def known(self, prompt: Artifact, examples: Sequence[Example]) -> Artifact:
        """The same where the file has it; else the prompt as it is."""
        prior = self._priors.get(self._place(prompt, examples)) if unlearned(prompt) else None
        return prompt if prior is None else replace(prompt, prior=prior)

    def _place(self, prompt: Artifact, examples: Sequence[Example]) -> tuple[str, str]:
        return self.key(prompt), SplitMark.of("", examples).sha256

    def missing(self, prompt: Artifact, examples: Sequence[Example]) -> list[Example]:
        """The examples that the prompt is still to be asked, or asked again where that failed before this `Matrix`."""
        key, known = self.key(prompt), self._cells.keys() | self._failed.keys()
        return [one for one in examples if (key, one.id, _content(one)) not in known]

    def cells(
        self, prompts: Sequence[Artifact], examples: Sequence[Example], advance: Advance | None = None
    ) -> list[list[Cell]]:
        """Of each prompt on each example; what is not there is computed and written down, prompt by prompt. What
        failed is written down as a failure, with why, and tried again by the next `Matrix`. Prompts that are scored
        come first: a backend that has no scores refuses them before texts are paid for.

        Raises UserError for two examples of one id, where another process writes the file, where `trial.too_many` of a
        prompt's failed, and as `trial.try_on`.
        """
        examples = distinct(examples)
        contents = list(map(_content, examples))
        with self.held() as file:
            for prompt in sorted(prompts, key=lambda one: one.scoring is None):
                self._fill(prompt, examples, contents, file, advance)
        known = self._cells | self._failed
        return [
            [known[self.key(prompt), example.id, content] for example, content in zip(examples, contents)]
            for prompt in prompts
        ]

    def values(
        self, prompts: Sequence[Artifact], examples: Sequence[Example], advance: Advance | None = None
    ) -> np.ndarray:
        """The same as numbers, [prompts, examples]: 1 right, 0 wrong, NaN failed."""
        return np.array([[cell.value for cell in row] for row in self.cells(prompts, examples, advance)])

    def _fill(
        self, prompt: Artifact, examples: list[Example], contents: list[str], file: JsonLines, advance: Advance | None
    ) -> None:
        key = self.key(prompt)
        open_ = [
            (example, content)
            for example, content in zip(examples, contents)
            if (key, example.id, content) not in self._cells and (key, example.id, content) not in self._failed
        ]
        if advance and len(open_) < len(examples):
            advance(len(examples) - len(open_))
        for start in range(0, len(open_), AT_ONCE):
            part = open_[start : start + AT_ONCE]
            with self.tally.counted(self.backend, file):
                try:
                    found = try_on(prompt, self.backend, [example for example, _ in part], self.embed)
                except Failed as error:
                    found = [lost(str(error))] * len(part)
            self._keep(prompt, part, found, file)
            file.sync()
            if advance:
                advance(len(part))
        failed = [self._failed.get((key, example.id, content)) for example, content in zip(examples, contents)]
        if too_many(sum(cell is not None for cell in failed), len(examples)):
            answered({number: cell.failed for number, cell in enumerate(failed) if cell}, examples)

    def _keep(
        self, prompt: Artifact, part: Sequence[tuple[Example, str]], found: Sequence[Cell], file: JsonLines
    ) -> None:
        """Write cells down: of examples, each with its content's name."""
        key = self.key(prompt)
        for (example, content), cell in zip(part, found, strict=True):
            row: dict[str, Any] = {"prompt": key, "name": prompt.name, "example": example.id, "content": content}
            file.write(**row, **({"failed": cell.failed} if cell.failed else asdict(cell)))
            (self._failed if cell.failed else self._cells)[key, example.id, content] = cell
            self.computed += not cell.failed
            self.tried += 1


def _content(example: Example) -> str:
    return content_id(to_dict(Shown.of(example)))
