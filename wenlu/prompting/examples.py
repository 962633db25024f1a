"""Examples that prompts are tried on: what is asked, and what is right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wenlu.base.errors import UserError


@dataclass(frozen=True)
class Example:
    """One thing to ask, and what is right: one of its choices, or any of its answers."""

    id: str
    """Names it in matrices, artifacts and reports; the same for the same content (`content_id`) where none is given."""
    fields: Mapping[str, Any]
    """What a template may show."""
    choices: tuple[str, ...] = ()
    """Whole answers to choose among; none where the answer is free."""
    gold: int | None = None
    """Number of the right choice."""
    answers: tuple[str, ...] = ()
    """Right texts of a free answer."""
    group: str = ""
    """Examples of one group (questions on one passage) depend on each other: intervals keep them together."""

    def __post_init__(self):
        if not self.id:
            raise UserError("an example needs an id that is not empty")
        if self.gold is not None and not 0 <= self.gold < len(self.choices):
            raise UserError(f"example {self.id}: gold is {self.gold}, but there are {len(self.choices)} choices")

    @property
    def right(self) -> str:
        """The right answer as text, the first of several. Raises UserError where none is known."""
        if self.gold is not None:
            return self.choices[self.gold]
        if not self.answers:
            raise UserError(f"example {self.id} has no gold answer: give one, or leave the example out")
        return self.answers[0]


def content_id(content: Mapping[str, Any]) -> str:
    """A name of 16 hexadecimal digits for what an example holds, whatever the order of its fields."""
    canonical = json.dumps(content, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def distinct(examples: Iterable[Example]) -> list[Example]:
    """The same examples; raises UserError where two have one id."""
    found: dict[str, Example] = {}
    for example in examples:
        if example.id in found:
            raise UserError(f"two examples have the id {example.id!r}: an id names one example only")
        found[example.id] = example
    return list(found.values())
