"""Two models on the same examples of a task: by how much they differ, and whether that could be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wenlu.base.errors import UserError
from wenlu.evaluation.kinds import Row
from wenlu.evaluation.run import Outcome
from wenlu.metrics.verdict import Verdict, verdict

LOWER = ("nats", "nats_per_token", "bits_per_byte")
"""Scores of which less is better; their differences are given with the sign turned."""


@dataclass(frozen=True)
class Comparison:
    """The second of two outcomes beside the first."""

    task: str
    models: tuple[str, str]
    verdicts: dict[str, Verdict]
    """By score; of those of which less is better, a positive difference says how much less the second has."""
    changed: tuple[tuple[Row, Row], ...]
    """Pairs of rows whose main scores differ."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        found = {name: one.as_dict() for name, one in self.verdicts.items()}
        return {"task": self.task, "models": list(self.models), "verdicts": found}


def compare(first: Outcome, second: Outcome, delta: float = 0.0) -> Comparison:
    """Judge the second model beside the first by each score of the examples, pair by pair.

    delta: the loss that does not matter, in the scores' units. Raises UserError where they were asked other examples.
    """
    ids = [[row["id"] for row in outcome.rows] for outcome in (first, second)]
    if first.task.name != second.task.name or ids[0] != ids[1]:
        raise UserError(f"{first.task.name} and {second.task.name} were asked on other examples: ask both the same")
    rows = (*first.rows, *second.rows)
    names = [name for name in first.rows[0]["scores"] if all(name in row["scores"] for row in rows)]
    verdicts = {}
    for name in names:
        values = [_values(outcome.rows, name) for outcome in (first, second)]
        verdicts[name] = verdict(*values, list(first.groups), delta)
    main = names[0]
    changed = tuple(
        (a, b) for a, b in zip(first.rows, second.rows, strict=True) if a["scores"][main] != b["scores"][main]
    )
    return Comparison(first.task.name, (first.model, second.model), verdicts, changed)


def _values(rows: Sequence[Row], name: str) -> list[float]:
    sign = -1.0 if name in LOWER else 1.0
    return [sign * row["scores"][name] for row in rows]
