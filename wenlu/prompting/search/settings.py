"""How much a search for a prompt tries, and what it may spend."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from wenlu.base.config import at_least
from wenlu.base.errors import UserError, did_you_mean
from wenlu.prompting.calibrate import SCORES
from wenlu.prompting.search.split import Shares
from wenlu.prompting.strategies import STRATEGIES


@dataclass(frozen=True)
class Search:
    """How much is tried, and what may be spent. Raises UserError for values out of range."""

    candidates: int = 24
    """Prompts, the baseline among them."""
    evaluations: int = 0
    """Most answers asked for before the test, one prompt on one example each; 0: by minutes or tokens, or else so many
    that every prompt could meet a third of the search examples."""
    minutes: float = 0.0
    """Instead: most time before the test."""
    tokens: int = 0
    """Instead: most tokens read and written before the test."""
    keep: int = 4
    """Prompts that come to the second stage."""
    scores: tuple[str, ...] = ("sum", "per_byte", "batch")
    """Ways to score choices that the last prompts are tried with, where the baseline scores choices at all."""
    strategies: tuple[str, ...] = ()
    """Other ways to write the baseline's answer that are tried, within its decoding.max_tokens."""
    delta: float = 0.0
    """The loss of accuracy that does not matter."""
    seed: int = 0
    shares: Shares = field(default_factory=Shares)
    draws: int = 0
    """Draws of demonstrations, each in an order of its own, of which one is tried: that under which the model's answers
    to some search examples are spread most evenly; 0: none."""

    def __post_init__(self):
        at_least("", self, 0, "evaluations", "minutes", "tokens", "delta", "seed", "draws")
        at_least("", self, 2, "candidates")
        at_least("", self, 1, "keep")
        given = [name for name in ("evaluations", "minutes", "tokens") if getattr(self, name)]
        if len(given) > 1:
            raise UserError(f"a search has one limit: give {' or '.join(given)}, not both")
        wrong = next((name for name in self.scores if name not in SCORES), None)
        if wrong is not None:
            raise UserError(f"a score is one of {', '.join(SCORES)}, not {wrong!r}.{did_you_mean(wrong, SCORES)}")
        wrong = next((name for name in self.strategies if name not in STRATEGIES), None)
        if wrong is not None:
            near = did_you_mean(wrong, STRATEGIES)
            raise UserError(f"a strategy is one of {', '.join(STRATEGIES)}, not {wrong!r}.{near}")
        if not math.isfinite(self.minutes):
            raise UserError(f"minutes must be a number of minutes, not {self.minutes}")


def difference(begun: Any, now: dict[str, Any]) -> str:
    """What of a search is other than when it was begun."""
    if not isinstance(begun, dict) or begun.get("form") != now["form"] or begun.keys() != now.keys():
        return "of an older wenlu"
    names = {"baseline": "another prompt or model", "examples": "other examples"}
    other = [text for name, text in names.items() if begun[name] != now[name]]
    before = begun["search"]
    names = [name for name, value in now["search"].items() if before.get(name) != value]
    return "; ".join([*other, *(f"{name} {before.get(name)!r}, now {now['search'][name]!r}" for name in names)])
