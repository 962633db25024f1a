"""Examples parted into search, select and test, the same way every time; looks at the test part are counted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wenlu.base.config import at_least
from wenlu.base.errors import UserError
from wenlu.base.files import lock_file, make_folder
from wenlu.base.log import JsonLines, read_rows
from wenlu.prompting.examples import Example, distinct

FEWEST = {"search": 1, "select": 2, "test": 6}
"""Examples, or groups of them, that a part has at least: of select one must be left out to tell its luck, and fewer of
test cannot differ at p ≤ 0.05, whatever they say."""


@dataclass(frozen=True)
class Shares:
    """How large the parts are to be: shares of the examples or their groups, of which only the ratios count."""

    search: float = 0.4
    """What many prompts are tried on."""
    select: float = 0.2
    """What the last few are told apart by."""
    test: float = 0.4
    """What the verdict comes from, looked at once."""
    seed: int = 0
    """Another one parts the examples in another way."""

    def __post_init__(self):
        at_least("shares", self, 0, "search", "select", "test")
        if not min(self.search, self.select, self.test) > 0:
            raise UserError("shares.search, select and test must all be more than 0: each part has its use")


@dataclass(frozen=True)
class Parts:
    """Numbers of examples, as they were given, in each part."""

    search: tuple[int, ...]
    select: tuple[int, ...]
    test: tuple[int, ...]


def part(examples: Sequence[Example], shares: Shares | None = None) -> Parts:
    """Each example on the side which the hash of its group, or else of its id, decides: no other example moves it.

    So examples that are added later leave the old ones where they are, and another ratio of search to select leaves the
    test part as it is. Raises UserError for two examples of one id, and where a part comes out too small.
    """
    shares = shares or Shares()
    examples = distinct(examples)
    total = shares.search + shares.select + shares.test
    borders = shares.test / total, (shares.test + shares.select) / total
    sides: dict[str, list[int]] = {"search": [], "select": [], "test": []}
    for number, example in enumerate(examples):
        place = _place(shares.seed, example)
        side = "test" if place < borders[0] else "select" if place < borders[1] else "search"
        sides[side].append(number)
    for name, numbers in sides.items():
        _refuse_too_few(name, [examples[number] for number in numbers], examples)
    return Parts(**{name: tuple(numbers) for name, numbers in sides.items()})


def _place(seed: int, example: Example) -> float:
    """Where an example lies in [0, 1): all of one group at the same place."""
    key = f"group {example.group}" if example.group else f"id {example.id}"
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:8], "big") / 2**64


def _refuse_too_few(name: str, inside: Sequence[Example], examples: Sequence[Example]) -> None:
    apart = len({example.group or f"\0{example.id}" for example in inside})
    if apart < FEWEST[name]:
        kind = "groups" if any(example.group for example in examples) else "examples"
        raise UserError(
            f"of {len(examples):,} examples only {apart} {kind} fall to the {name} part, which needs {FEWEST[name]} at "
            f"least: give more examples, or a larger share of {name}"
        )


@dataclass(frozen=True)
class Looks:
    """A file of JSON lines with a row for each time that a test part was looked at: for what, and at which examples."""

    path: Path

    def take(self, test: Sequence[str], purpose: str, *, again: bool = False) -> int:
        """Look at a test part, and say the how-manieth time it is, from 1 on; on the disk before the caller looks.

        test: the ids in it; one of them that was looked at makes a further look of it, whatever was added since.
        purpose: names what is judged, such as a hash of baseline and chosen prompt. The same purpose on the same
        examples is the same look, so that a judgement that was cut off can be made again. Raises UserError for another
        look unless `again`: whoever chooses by what the test said has none left.
        """
        examples = sorted(hashlib.sha256(id.encode()).hexdigest()[:12] for id in test)
        make_folder(self.path.parent)
        held = lock_file(self.path.with_name(self.path.name + ".lock"), f"{self.path} is being written: try again")
        try:
            before = [row for row in read_rows(self.path) if not set(examples).isdisjoint(row["examples"])]
            row = {"look": purpose, "examples": examples}
            if row in before:
                return before.index(row) + 1
            if before and not again:
                seen = set(examples) & {one for row in before for one in row["examples"]}
                raise UserError(
                    f"{len(seen)} of the {len(examples)} test examples were looked at already, last for "
                    f"{before[-1]['look']} ({self.path}): a second verdict on them is no fresh evidence; give new "
                    "examples, or look again knowingly (--again), and it is counted"
                )
            log = JsonLines(self.path)
            log.write(**row)
            log.sync()
            log.close()
            return len(before) + 1
        finally:
            os.close(held)
