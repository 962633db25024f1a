"""Sentences with two classes: polarity of film reviews (Pang & Lee 2005) and subjectivity (Pang & Lee 2004)."""

from __future__ import annotations

import itertools

from wenlu.base.errors import UserError
from wenlu.evaluation.kinds import Choice
from wenlu.evaluation.task import Task
from wenlu.evaluation.tasks.source import Source, lines_of, wanted
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Template

SETS = {
    "sentence_polarity": (("rt-polarity.neg", "rt-polarity.pos"), ("negative", "positive"), "Sentiment"),
    "subjectivity": (("plot.tok.gt9.5000", "quote.tok.gt9.5000"), ("objective", "subjective"), "Style"),
}
TENTH = 10
"""Every tenth sentence of a class is asked, the others are there for shots; the classes come by turns."""


def read(source: Source, name: str) -> Task:
    """One of these sets; a class is answered by its name."""
    files, classes, asked = SETS[name]
    template = Template(f"Review: {{{{ text }}}}\n{asked}:")
    if source.folder is None:
        if name != "sentence_polarity":
            raise UserError(f"task {name} is not on the hub as it is known here: give its files by --data FOLDER")
        hubs = (f"cornell-movie-review-data/rotten_tomatoes:{split}" for split in ("test", "train"))
        rows = [
            [
                (*wanted(row, ("text",), f"{hub}, row {n}"), *wanted(row, ("label",), f"{hub}, row {n}", int))
                for n, row in enumerate(source.rows(name, "", "", hub))
            ]
            for hub in hubs
        ]
        rows[1] = _by_turns([[pair for pair in rows[1] if pair[1] == label] for label in (0, 1)])
    else:
        texts = [lines_of(source.read(name, file, f"{name}.zip"), "latin-1") for file in files]
        of_class = [[(line.strip(), label) for line in lines if line.strip()] for label, lines in enumerate(texts)]
        rows = [
            _by_turns([pairs[::TENTH] for pairs in of_class]),
            _by_turns([[pair for n, pair in enumerate(pairs) if n % TENTH] for pairs in of_class]),
        ]
    made = [
        tuple(Example(f"{part}-{n}", {"text": text}, classes, label) for n, (text, label) in enumerate(of_part))
        for part, of_part in zip(("test", "train"), rows, strict=True)
    ]
    return Task(name, Choice(classes), made[0], template, made[1])


def _by_turns(classes: list[list[tuple[str, int]]]) -> list[tuple[str, int]]:
    return [pair for pairs in itertools.zip_longest(*classes) for pair in pairs if pair is not None]
