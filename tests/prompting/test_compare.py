"""Verdicts on several prompts: what so many comparisons show by chance is not called better."""

import random
from contextlib import nullcontext
from dataclasses import replace

import pytest

from wenlu.prompting.artifact import Artifact
from wenlu.prompting.calibrate import Scoring
from wenlu.prompting.compare import compare
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Template
from wenlu.prompting.trial import Cell

EXAMPLES = [Example(str(n), {"text": f"{n}"}, ("a", "b"), n % 2) for n in range(200)]
PLAIN = Artifact(name="plain", template=Template(question="{{ text }}"), scoring=Scoring("sum"))


class Known:
    """Cells that are told; of the examples the first half are right by the baseline."""

    backend = embed = None

    def __init__(self, gained):
        """gained: of each other prompt; every one loses 5."""
        half, chance = len(EXAMPLES) // 2, random.Random(0)
        self.rows = [[1.0] * half + [0.0] * half]
        for number in gained:
            row = list(self.rows[0])
            for place in chance.sample(range(half), 5) + chance.sample(range(half, 2 * half), number):
                row[place] = 1.0 - row[place]
            self.rows.append(row)

    def held(self):
        return nullcontext()

    def fitted(self, prompt, examples):
        return prompt

    def cells(self, prompts, examples, advance=None):
        return [[Cell(value, "a") for value in row] for row in self.rows]


def compared(gained, **settings):
    others = [
        replace(PLAIN, name=f"{n}", template=replace(PLAIN.template, instruction=f"{n}")) for n in range(len(gained))
    ]
    return compare(Known(gained), [PLAIN, *others], EXAMPLES, **settings)[1:]


def test_many_that_look_better_by_chance_are_not_called_so():
    rows = compared([15] * 31)
    assert all(row.verdict.p <= 0.05 < row.adjusted and row.verdict.difference.interval.low > 0 for row in rows)
    assert {row.verdict.word for row in rows} == {"undecided"}
    assert all(row.verdict.adjusted == row.adjusted and row.verdict.smallest is None for row in rows)
    assert f"p = 0.041 by McNemar's exact test ({rows[0].adjusted:.2g} adjusted for so many comparisons)" in str(
        rows[0].verdict
    )
    assert {row.verdict.word for row in compared([15] * 31, delta=0.01)} == {"no worse"}, "that goes by the interval"


def test_one_that_is_better_is_found_among_many():
    words = [row.verdict.word for row in compared([15] * 30 + [40])]
    assert words[-1] == "better" and set(words[:-1]) == {"undecided"}


def test_a_single_comparison_goes_by_its_own_p():
    (row,) = compared([15])
    assert row.verdict.word == "better" and row.verdict.adjusted is None and "adjusted" not in str(row.verdict)
    assert row.verdict.smallest > 0
    assert row.adjusted == pytest.approx(row.verdict.p, abs=0.02)
