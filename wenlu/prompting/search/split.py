"""Examples parted into search, select and test, the same way every time; looks at the test part are counted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wenlu.base.config import at_least
from wenlu.base.errors import UserError
from wenlu.base.files import lock_file, make_folder
from wenlu.base.log import JsonLines, read_rows
from wenlu.prompting.examples import Example, distinct

FEWEST = 6
"""Examples, or groups of them, that a test part has at least: fewer cannot differ at p ≤ 0.05, whatever they say."""


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
    fingerprints: dict[str, str] = field(compare=False)
    """For each part a name of 16 hexadecimal digits for the ids in it."""


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
    prints = {name: fingerprint([examples[number].id for number in numbers]) for name, numbers in sides.items()}
    return Parts(**{name: tuple(numbers) for name, numbers in sides.items()}, fingerprints=prints)


def _place(seed: int, example: Example) -> float:
    """Where an example lies in [0, 1): all of one group at the same place."""
    key = f"group {example.group}" if example.group else f"id {example.id}"
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:8], "big") / 2**64


def _refuse_too_few(name: str, inside: Sequence[Example], examples: Sequence[Example]) -> None:
    apart = len({example.group or f"\0{example.id}" for example in inside})
    least = FEWEST if name == "test" else 1
    if apart < least:
        kind = "groups" if any(example.group for example in examples) else "examples"
        raise UserError(
            f"of {len(examples):,} examples only {apart} {kind} fall to the {name} part, which needs {least} at least: "
            f"give more examples, or a larger share of {name}"
        )


def fingerprint(ids: Sequence[str]) -> str:
    """A name of 16 hexadecimal digits for a set of ids, whatever their order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Looks:
    """A file of JSON lines with a row for each time that a test part was looked at, and for what."""

    path: Path

    def count(self, test: str) -> int:
        """How often the test part of this fingerprint was looked at."""
        return sum(row["test"] == test for row in read_rows(self.path))

    def take(self, test: str, purpose: str, *, again: bool = False) -> int:
        """Look at a test part, and say the how-manieth time it is, from 1 on; on the disk before the caller looks.

        test: its fingerprint; purpose: names what is judged, such as a hash of baseline and chosen prompt. The same
        purpose is the same look, so that a judgement that was cut off can be made again. Raises UserError for another
        purpose unless `again`: whoever chooses by what the test said has none left.
        """
        make_folder(self.path.parent)
        held = lock_file(self.path.with_name(self.path.name + ".lock"), f"{self.path} is being written: try again")
        try:
            before = [row["look"] for row in read_rows(self.path) if row["test"] == test]
            if purpose in before:
                return before.index(purpose) + 1
            if before and not again:
                raise UserError(
                    f"the test part {test} was looked at already, for {before[-1]} ({self.path}): a second verdict on "
                    "it is no fresh evidence; give new examples, or ask for it again knowingly, and it is counted"
                )
            log = JsonLines(self.path)
            log.write(test=test, look=purpose)
            log.sync()
            log.close()
            return len(before) + 1
        finally:
            os.close(held)
