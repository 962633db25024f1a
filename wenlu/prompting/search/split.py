"""Examples parted into search, select and test, the same way every time; looks at the test part are counted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from wenlu.base.config import at_least
from wenlu.base.errors import UserError
from wenlu.base.files import lock_file, make_folder
from wenlu.base.log import JsonLines, counted, read_rows, say
from wenlu.prompting.examples import Example, content_id, distinct

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
        kind = "group" if any(example.group for example in examples) else "example"
        raise UserError(
            f"of {counted(len(examples), 'example')} only {counted(apart, kind)} fell to the {name} part, which needs "
            f"{FEWEST[name]} at least: give more of them"
        )


@dataclass(frozen=True)
class Looks:
    """Files of JSON lines with a row for each time that a test part was looked at: for what, and at which examples.

    One beside the examples, say, and one of the machine: copied examples leave the first behind, and what is counted
    is the larger number.
    """

    path: Path
    """Examples in it are known by id and by content."""
    machine: Path | None = None
    """Examples of any file, so known by content alone."""

    def take(self, test: Sequence[Example], purpose: str, *, again: bool = False) -> int:
        """Look at a test part, and say the how-manieth time it is, from 1 on; on the disk before the caller looks.

        One of the examples that was looked at makes a further look of it, whatever was added since. purpose: names
        what is judged, such as a hash of baseline and chosen prompt. The same purpose on the same examples is the same
        look, so that a judgement that was cut off can be made again. Raises UserError for another look unless `again`:
        whoever chooses by what the test said has none left; and for a file that holds no looks.
        """
        ids = sorted(hashlib.sha256(one.id.encode()).hexdigest()[:12] for one in test)
        contents = sorted(_content(one) for one in test)
        rows = {self.path: {"look": purpose, "examples": ids, "contents": contents}}
        if self.machine is not None:
            rows[self.machine] = {"look": purpose, "contents": contents}
            try:
                make_folder(self.machine.parent)
            except UserError as error:
                say(f"looks are counted beside the examples only: {error}", style="yellow")
                del rows[self.machine]
        with ExitStack() as held:
            for file in rows:
                make_folder(file.parent)
                lock = file.with_name(file.name + ".lock")
                held.callback(os.close, lock_file(lock, f"{file} is being written: try again"))
            before = {file: self._before(file, row) for file, row in rows.items()}
            if not again and not any(_is(one, row) for file, row in rows.items() for one in before[file]):
                for file, row in rows.items():
                    _refuse_again(file, row, before[file])
            return max(_noted(file, row, before[file]) for file, row in rows.items())

    @staticmethod
    def _before(file: Path, row: dict) -> list[dict]:
        """The looks in a file at any of the same examples."""
        found = read_rows(file)
        for one in found:
            if not isinstance(one, dict) or "look" not in one or not ({"examples", "contents"} & set(one)):
                raise UserError(
                    f"{file} holds looks in a form that names no examples (of an older wenlu, or of something else): "
                    "whether these were looked at cannot be told; take new examples, or move the file away knowingly"
                )
        return [one for one in found if _seen(one, row)]


def _seen(one: dict, row: dict) -> int:
    """How many examples of a row are in another's, by their ids or by their contents."""
    return max(len(set(one.get(name, ())) & set(row.get(name, ()))) for name in ("examples", "contents"))


def _is(one: dict, row: dict) -> bool:
    """Whether a row tells of the same look; older ones have no contents."""
    return all(one[name] == row[name] for name in one if name in row)


def _refuse_again(file: Path, row: dict, before: list[dict]) -> None:
    if before:
        seen = max(_seen(one, row) for one in before)
        raise UserError(
            f"{seen} of the {len(row['contents'])} test examples were looked at already, last for "
            f"{before[-1]['look']} ({file}): a second verdict on them is no fresh evidence; give new "
            "examples, or look again knowingly (--again), and it is counted"
        )


def _noted(file: Path, row: dict, before: list[dict]) -> int:
    """The number of a look in a file, where it is written if it is not there."""
    known = [place for place, one in enumerate(before, 1) if _is(one, row)]
    if known:
        return known[0]
    log = JsonLines(file)
    log.write(**row)
    log.sync()
    log.close()
    return len(before) + 1


def _content(example: Example) -> str:
    """Of what is asked and what is right, whatever the id."""
    about = {"fields": dict(example.fields), "choices": example.choices, "right": example.right}
    return content_id(about)
