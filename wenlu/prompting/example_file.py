"""Examples from a user's own file: rows with named keys; a row that cannot be an example is refused by its line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError, did_you_mean
from wenlu.base.log import say
from wenlu.prompting.examples import Example, content_id


@dataclass(frozen=True)
class Keys:
    """Under which keys a row holds what; all others are fields of templates. Raises UserError for a key used twice."""

    gold: str = "gold"
    """The right choice: its text, or its number from 0; without choices, the right answer, or a list of such."""
    choices: str = "choices"
    """A list of texts; a row may be without."""
    labels: tuple[str, ...] = ()
    """Choices of all rows, where they have none of their own."""
    id: str = "id"
    """A row may be without: then its content gives it one."""
    group: str = "group"
    """What belongs together (questions on one passage); a row may be without."""

    def __post_init__(self):
        names = [self.gold, self.choices, self.id, self.group]
        if len(set(names)) < 4 or not self.gold:
            raise UserError(f"the keys of gold, choices, id and group must be different, not {', '.join(names)}")
        if len(set(self.labels)) != len(self.labels) or len(self.labels) == 1:
            raise UserError(f"labels must be two different ones or more, not {list(self.labels)}")


def read_examples(path: Path | str, keys: Keys | None = None, *, limit: int = 0, search: bool = False) -> list[Example]:
    """The examples in a file of JSON lines (or of another kind with records: json, csv, tsv, parquet), in its order.

    limit: only so many of them; 0: all. search: for choosing among prompts, which examples that all have one answer
    cannot do; without it that is said. Raises UserError, with the line, for a row that is none, has no gold answer or
    one that is not among its choices, and where two have one id or say the same.
    """
    path, keys = Path(path), keys or Keys()
    if not path.is_file():
        raise UserError(f"no file {path}: give one of JSON lines, each with fields and {keys.gold!r}")
    found: dict[str, tuple[int, Example]] = {}
    for line, row in _rows(path):
        try:
            example, named = example_of(row, keys)
        except UserError as error:
            raise UserError(f"{path}, line {line}: {error}") from None
        if example.id in found:
            what = f"have the id {example.id!r}" if named else "say the same"
            raise UserError(f"{path}: lines {found[example.id][0]} and {line} {what}: leave one out, or change its id")
        found[example.id] = (line, example)
    examples = [example for _, example in found.values()][: limit or None]
    _check(path, examples, search)
    return examples


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    from wenlu.data.reading.counts import SourceCounts
    from wenlu.data.reading.records import records_of

    counts = SourceCounts()
    rows = list(records_of(path, counts))
    if counts.bad_lines:
        raise UserError(f"{counts.first_bad} ({counts.bad_lines} such lines): mend it, or leave it out")
    return rows


def example_of(row: Mapping[str, Any], keys: Keys) -> tuple[Example, bool]:
    """The example of a row, and whether it has an id of its own. Raises UserError for a row that is none."""
    gold, choices = row.get(keys.gold), _choices(row, keys)
    if gold is None or gold == "" or gold == []:
        near = did_you_mean(keys.gold, row)
        there = ", ".join(map(repr, row))
        raise UserError(f"no gold answer under {keys.gold!r}.{near} The row has: {there}; name its key as gold")
    fields = {name: value for name, value in row.items() if name not in (keys.gold, keys.choices, keys.id, keys.group)}
    if not fields:
        raise UserError("nothing but an answer: a row needs at least one field to ask about")
    known = {"fields": fields, "choices": list(choices), "gold": gold}
    id = row.get(keys.id)
    named = id is not None and id != ""
    about = {"id": str(id) if named else content_id(known), "fields": fields, "group": str(row.get(keys.group) or "")}
    if choices:
        labelled = row.get(keys.choices) is None
        return Example(**about, choices=choices, gold=_number(gold, choices, labelled=labelled)), named
    answers = gold if isinstance(gold, list) else [gold]
    if not all(isinstance(one, str | int | float) and not isinstance(one, bool) and one != "" for one in answers):
        raise UserError(f"the gold answer must be a text, a number or a list of such, not {gold!r}")
    return Example(**about, answers=tuple(map(str, answers))), named


def _choices(row: Mapping[str, Any], keys: Keys) -> tuple[str, ...]:
    choices = row.get(keys.choices)
    if choices is None:
        return keys.labels
    if keys.labels:
        raise UserError(f"a row with {keys.choices!r} of its own needs no labels: give one or the other")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(one, str) and one for one in choices):
        raise UserError(f"{keys.choices!r} must be a list of two texts or more, not {choices!r}")
    if len(set(choices)) != len(choices):
        raise UserError(f"{keys.choices!r} holds a choice twice: {choices!r}")
    return tuple(choices)


def _number(gold: Any, choices: Sequence[str], *, labelled: bool) -> int:
    """Of the choice that gold names. labelled: the choices are those of all rows, and may be what was misspelt."""
    if isinstance(gold, int) and not isinstance(gold, bool):
        if not 0 <= gold < len(choices):
            raise UserError(f"gold is {gold}, but the {len(choices)} choices have the numbers 0 to {len(choices) - 1}")
        return gold
    if gold not in choices:
        named, near = ("labels", "") if labelled else ("choices", did_you_mean(str(gold), choices))
        way_out = " Labels are written as the rows write their gold" if labelled else ""
        raise UserError(f"gold {gold!r} is not among the {named} {', '.join(map(repr, choices))}.{near}{way_out}")
    return list(choices).index(gold)


def _check(path: Path, examples: Sequence[Example], search: bool) -> None:
    if not examples:
        raise UserError(f"{path} holds no examples: give JSON lines with fields and a gold answer")
    answers = Counter(example.right for example in examples)
    if len(answers) == 1 and len(examples) > 1:
        told = f"{path}: all {len(examples)} examples have the answer {next(iter(answers))!r}"
        if search:
            raise UserError(f"{told}, so any prompt that always says so wins: give examples with other answers")
        say(f"{told}: whatever always says so looks right", style="yellow")
