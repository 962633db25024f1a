"""Tasks of the user's own: a TOML file that says what the rows of a file hold, and how they are asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from wenlu.base.config import from_dict, read_toml
from wenlu.base.errors import UserError
from wenlu.base.log import counted
from wenlu.evaluation.kinds import Choice, Cloze, Contexts, Kind, Pairs, Texts
from wenlu.evaluation.task import Task
from wenlu.evaluation.tasks.source import instead_of, rows_of_file
from wenlu.evaluation.writing import Measure, Writing
from wenlu.metrics.text import is_chinese
from wenlu.prompting.answers import Extractor
from wenlu.prompting.example_file import Keys, example_of
from wenlu.prompting.examples import Example, content_id
from wenlu.prompting.template import Template

Row = dict[str, Any]
_NONE, _NO_GROUP = "\0choices", "\0group"
"""Keys that no row has."""


@dataclass(frozen=True)
class Own:
    """A task as its TOML file says. Raises UserError for settings that do not go together."""

    kind: Literal["choice", "classify", "contexts", "pairs", "cloze", "writing", "texts"]
    """choice: options that each row has. classify: the same labels for all rows. contexts: one ending after several
    beginnings. pairs: a right and a wrong sentence. cloze: a text and its end. writing: an answer is written. texts:
    every token of a text is predicted."""
    file: str
    """Rows to ask: jsonl, json, csv, tsv or parquet, beside the TOML file; or hub:OWNER/NAME[/CONFIGURATION][:SPLIT]"""
    name: str = ""
    """Empty: the TOML file's own."""
    train: str = ""
    """Rows that shots come from; empty: the first of `file`, which are then not asked."""
    shots: int = 0
    choices: str = ""
    """Of choice and contexts: the field with a list of texts."""
    labels: tuple[str, ...] = ()
    """Of classify: how the classes are answered, in the order of their numbers."""
    gold: str = "gold"
    """The field with what is right: the number of a choice or its text; a text, or a list of several that are right."""
    continuation: str = "continuation"
    """Of contexts: the field with the ending."""
    good: str = "sentence_good"
    """Of pairs: the field with the right sentence."""
    bad: str = "sentence_bad"
    text: str = "text"
    """Of texts: the field with the text."""
    id: str = "id"
    """The field that names a row; a row may be without, then a hash of what it holds does."""
    group: str = ""
    """The field that rows share which depend on each other, such as a passage."""
    part: str = ""
    """A field by whose values the main figure is also given."""
    metric: Measure = "answer"
    """Of writing."""
    extractor: Extractor = field(default_factory=Extractor)
    """Of writing with metric answer: where the answer lies in the text."""
    marker: str = ""
    """Of writing with metric verbatim: the answer follows it."""
    stop: tuple[str, ...] = ("\n",)
    max_tokens: int = 64
    template: Template | None = None

    def __post_init__(self):
        wanted = self.kind in ("choice", "classify", "cloze", "writing")
        if wanted and self.template is None:
            raise UserError(f"a task of kind {self.kind} needs a [template] with a question")
        if not wanted and self.template is not None:
            raise UserError(f"a task of kind {self.kind} asks about texts as they stand: leave out [template]")
        if (self.kind in ("choice", "contexts")) != bool(self.choices):
            raise UserError("choices names the field with the options of choice and contexts, and is for these only")
        if (self.kind == "classify") != bool(self.labels) or len(set(self.labels)) != len(self.labels):
            raise UserError("labels are the different answers of classify, and of classify only")
        if self.shots < 0:
            raise UserError(f"shots must be at least 0, not {self.shots}")


def read(path: str) -> Task:
    """The task that a TOML file describes. Raises UserError for what is wrong in it or in its rows, with its place."""
    settings = read_toml(path)
    for name in ("kind", "file"):
        if name not in settings:
            raise UserError(f"{path}: {name} is missing: a task needs a kind and a file")
    try:
        own = from_dict(Own, settings)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    folder = Path(path).parent
    examples, twice = _examples(own, own.file, folder)
    pool, _ = _examples(own, own.train, folder) if own.train else ((), 0)
    notes = (f"{counted(twice, 'row')} of {own.file} left out, for others say the same",) if twice else ()
    task = Task(
        own.name or Path(path).stem, _kind(own, examples), examples, own.template, pool, own.shots, own.part, notes
    )
    return task


def _kind(own: Own, examples: tuple[Example, ...]) -> Kind:
    if own.kind == "writing":
        chinese = is_chinese("".join(answer for example in examples for answer in example.answers))
        return Writing(own.metric, own.extractor, None, own.marker, own.stop, own.max_tokens, chinese)
    kinds = {"contexts": Contexts, "pairs": Pairs, "cloze": Cloze, "texts": Texts}
    return Choice(own.labels) if own.kind in ("choice", "classify") else kinds[own.kind]()


def _examples(own: Own, name: str, folder: Path) -> tuple[tuple[Example, ...], int]:
    """The examples of a file, and how many rows were left out that are in it twice, without names of their own."""
    found: dict[str, Example] = {}
    twice = 0
    for number, row in enumerate(rows_of_file(name, folder), 1):
        where = f"{name}, row {number}"
        try:
            example, named = _example(own, row)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if example.id in found:
            if named:
                raise UserError(f"{where}: the id {example.id!r} is there already: an id names one row only")
            twice += 1
            continue
        found[example.id] = example
    if not found:
        raise UserError(f"{name} holds no rows: a task needs some")
    return tuple(found.values()), twice


def _example(own: Own, row: Row) -> tuple[Example, bool]:
    """The example of a row, and whether it has an id of its own."""
    named = row.get(own.id) not in (None, "")
    id = str(row[own.id]) if named else content_id(row)
    group = str(_field(own, row, "group")) if own.group else ""
    if own.kind == "pairs":
        return Example(id, row, (_field(own, row, "good"), _field(own, row, "bad")), 0, group=group), named
    if own.kind == "texts":
        return Example(id, {**row, "text": _field(own, row, "text")}, group=group), named
    if own.kind in ("choice", "contexts"):
        _field(own, row, "choices")
    keys = Keys(own.gold, own.choices or _NONE, own.labels, own.id, own.group or _NO_GROUP)
    example, _ = example_of(row, keys)
    # What names rows, and what they share, such as a passage, may be shown too.
    fields = {**example.fields, **{name: row[name] for name in (own.id, own.group) if name in row}}
    if own.kind == "contexts":
        fields["continuation"] = _field(own, row, "continuation")
    return replace(example, id=id, fields=fields), named


def _field(own: Own, row: Row, setting: str) -> Any:
    """The value of a field that a setting names."""
    name = getattr(own, setting)
    if row.get(name) in (None, ""):
        there = "" if name in row else instead_of(name, row)
        raise UserError(f"nothing for {setting} under {name!r}.{there}")
    return row[name]
