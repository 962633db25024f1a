"""The 24 small tasks of instruction induction (Honovich et al. 2022), each judged as in APE (Zhou et al. 2022)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError
from wenlu.evaluation.task import Task
from wenlu.evaluation.tasks.source import Source, instead_of, wanted
from wenlu.evaluation.writing import Writing
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Template

ARCHIVE = "instruction_induction.tar.xz"
PREFIX = "instruction_induction/"
MEASURES = {
    "common_concept": "f1",
    "informal_to_formal": "f1",
    "orthography_starts_with": "set",
    "taxonomy_animal": "set",
    "synonyms": "contains",
}
"""Those that are not judged by exact match."""
_RIGHT = ("possible_outputs", "possible_translations", "all_common_concepts", "other_rhymes")
"""Fields with further right answers."""


def names(source: Source) -> list[str]:
    """The tasks that are there."""
    if source.folder is None:
        raise UserError("instruction induction is not on the hub as it is known here: give its files by --data FOLDER")
    return [PREFIX + Path(name).stem for name in source.names("raw/execute", ARCHIVE)]


def read(source: Source, name: str) -> Task:
    """One task (`instruction_induction/antonyms`), with the first instruction that people wrote for it."""
    task = name.removeprefix(PREFIX)
    known = [one.removeprefix(PREFIX) for one in names(source)]
    if task not in known:
        raise UserError(f"instruction induction has no task {task!r} in {source.folder}.{instead_of(task, known)}")
    rows = source.rows(name, f"raw/execute/{task}.json", ARCHIVE)
    pool = source.rows(name, f"raw/induce/{task}.json", ARCHIVE)
    notes = json.loads(source.read(name, f"annotations/{task}.json", ARCHIVE))["annotations"]
    template = Template("Input: {{ input }}\nOutput:", instruction="{{ instruction }}")
    made = [
        tuple(
            _example(f"{part}-{n}", _asked(row, n, f"task {name}, {part} row {n}"), notes[0].strip())
            for n, row in enumerate(of_part)
        )
        for part, of_part in (("execute", rows), ("induce", pool))
    ]
    return Task(name, Writing(MEASURES.get(task, "answer"), max_tokens=50), made[0], template, made[1])


def _asked(row: dict[str, Any], number: int, where: str) -> dict[str, Any]:
    """A row with an input and an output: of a cause and its effect, in turned order by turns, the cause is wanted."""
    if "cause" in row:
        sentences = wanted(row, ("cause", "effect"), where)[:: -1 if number % 2 else 1]
        return {"input": f"Sentence 1: {sentences[0]} Sentence 2: {sentences[1]}", "output": row["cause"]}
    if "items" in row:
        (items,), (concept,) = wanted(row, ("items",), where, list), wanted(row, ("concept",), where)
        return {**row, "input": ", ".join(map(str, items)), "output": concept}
    wanted(row, ("input", "output"), where)
    return row


def _example(id: str, row: dict[str, Any], instruction: str) -> Example:
    right = [row["output"], *(one for field in _RIGHT for one in row.get(field, ()))]
    fields = {"input": row["input"], "instruction": instruction}
    return Example(id, fields, answers=tuple(dict.fromkeys(right)))
