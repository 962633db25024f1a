"""BLiMP: 67 paradigms of 1,000 minimal pairs (Warstadt et al. 2020): which of two sentences is grammatical?"""

from __future__ import annotations

from wenlu.base.errors import UserError
from wenlu.evaluation.kinds import Pairs
from wenlu.evaluation.task import Task
from wenlu.evaluation.tasks.source import Source, instead_of, wanted
from wenlu.prompting.examples import Example

FILE = "blimp_67x1000.jsonl"


def read(source: Source, name: str) -> Task:
    """All paradigms (`blimp`), with a figure of each; or one (`blimp/adjunct_island`)."""
    _, _, paradigm = name.partition("/")
    if source.folder is None:
        if not paradigm:
            raise UserError("on the hub BLiMP lies by paradigm: ask for one, such as blimp/adjunct_island")
        rows = source.rows(name, "", "", f"nyu-mll/blimp/{paradigm}:train")
    elif paradigm and (own := source.find(f"{paradigm}.jsonl")) is not None:
        rows = source.rows(name, f"{paradigm}.jsonl") if own else []
    else:
        rows = source.rows(name, FILE)
        known = {row.get("UID") for row in rows} - {None}
        if paradigm and paradigm not in known:
            raise UserError(f"BLiMP has no paradigm {paradigm!r}.{instead_of(paradigm, sorted(known))}")
        rows = [row for row in rows if paradigm in ("", row.get("UID"))]
    examples = []
    for number, row in enumerate(rows):
        pair = wanted(row, ("sentence_good", "sentence_bad"), f"task {name}, row {number}")
        fields = {"UID": row.get("UID", paradigm), "field": row.get("field", "")}
        examples.append(Example(str(number), fields, tuple(pair), 0))
    return Task(name, Pairs(), tuple(examples), part="" if paradigm else "UID")
