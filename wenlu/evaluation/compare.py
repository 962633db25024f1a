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
WEIGHTS = {"nats_per_token": "tokens", "bits_per_byte": "bytes"}
"""Score → what it is divided by: differences are weighted by it, as the figures are."""


@dataclass(frozen=True)
class Comparison:
    """The second of two outcomes beside the first."""

    task: str
    models: tuple[str, str]
    verdicts: dict[str, Verdict]
    """By score; of those of which less is better, a positive difference says how much less the second has."""
    changed: tuple[tuple[Row, Row], ...]
    """Pairs of rows whose main scores differ."""
    notes: tuple[str, ...] = ()
    """What is not compared."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        found = {name: one.as_dict() for name, one in self.verdicts.items()}
        return {"task": self.task, "models": list(self.models), "verdicts": found, "notes": list(self.notes)}


def compare(first: Outcome, second: Outcome, delta: float = 0.0) -> Comparison:
    """Judge the second model beside the first by each score that all examples have, pair by pair, the main one first.

    Nats per token are not compared where tokenizers differ: another one makes them another figure. delta: the loss that
    does not matter, in the scores' units. Raises UserError where they were asked other examples.
    """
    ids = [[row["id"] for row in outcome.rows] for outcome in (first, second)]
    if first.task.name != second.task.name or ids[0] != ids[1]:
        raise UserError(f"{first.task.name} and {second.task.name} were asked on other examples: ask both the same")
    names, notes = _compared(first, second)
    verdicts = {}
    for name in names:
        values = [_values(outcome.rows, name) for outcome in (first, second)]
        weights = [row[WEIGHTS[name]] for row in first.rows] if name in WEIGHTS else None
        verdicts[name] = verdict(*values, list(first.groups), delta, weights=weights)
    pairs = zip(first.rows, second.rows, strict=True)
    changed = tuple((a, b) for a, b in pairs if names and a["scores"][names[0]] != b["scores"][names[0]])
    return Comparison(first.task.name, (first.model, second.model), verdicts, changed, notes)


def _compared(first: Outcome, second: Outcome) -> tuple[list[str], tuple[str, ...]]:
    """The scores that both have of every example, the main one first, and why others are not compared."""
    rows, notes = (*first.rows, *second.rows), []
    known = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    names = [name for name in known if all(name in row["scores"] for row in rows)]
    if lacking := [name for name in known if name not in names]:
        notes.append(f"{', '.join(lacking)}: not compared, for not every example has it by both models")
    if "nats_per_token" in names and first.tokenizer != second.tokenizer:
        names.remove("nats_per_token")
        notes.append("nats_per_token: not compared, for the models have different tokenizers")
    return sorted(names, key=lambda name: name != first.task.kind.metric), tuple(notes)


def _values(rows: Sequence[Row], name: str) -> list[float]:
    sign = -1.0 if name in LOWER else 1.0
    return [sign * row["scores"][name] for row in rows]
