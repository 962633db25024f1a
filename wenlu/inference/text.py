"""A text that is wanted, and the same text in the making."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from wenlu.base.errors import UserError
from wenlu.inference.adjust import UNCHANGED, Adjustments
from wenlu.inference.constrain import Matcher
from wenlu.inference.reading import Finish
from wenlu.inference.sample import GREEDY, Strategy


@dataclass(frozen=True)
class Request:
    """A text that is wanted."""

    ids: tuple[int, ...]
    """The prompt."""
    strategy: Strategy = GREEDY
    max_tokens: int = 200
    stop_ids: frozenset[int] = frozenset()
    """End tokens; they are not given out."""
    generator: torch.Generator | None = None
    """Of this text's draws alone (`sample.row_generators`)."""
    adjustments: Adjustments = UNCHANGED
    matcher: Matcher | None = None
    """What a constraint allows next (`constrain.Constrainer.matcher`); each text has its own."""
    alternatives: int | None = None
    """Keep log-probabilities: of the chosen tokens, and of so many likeliest ones."""


@dataclass(eq=False)
class Text:
    """A text in the making."""

    request: Request
    limit: int
    """How many tokens it may have."""
    last: Finish
    """Why it may have no more."""
    ids: list[int] = field(default_factory=list)
    finish: Finish | None = None
    """Why it has ended, once it has."""
    error: UserError | None = None
    """What went wrong, where it has ended by an error."""
    near_ties: list[int] = field(default_factory=list)
    """Places in it that were chosen by a margin less than `NEAR`."""
    log_probabilities: list[float] = field(default_factory=list)
    """In nats, of the chosen tokens by the model itself, whatever was asked for besides; where alternatives are."""
    alternatives: list[list[tuple[int, float]]] = field(default_factory=list)
    """(id, log-probability) of the likeliest tokens at each place."""
    guessed: int = 0
    """Tokens that were guessed and read ahead."""
    taken: int = 0
    """Those of them that were what would have been chosen anyway."""

    def end(self, reason: Finish = "cancelled") -> None:
        """End it from outside: it leaves before the next step, and its mates go on as they would."""
        self.finish, self.error = reason, None

    def fail(self, error: UserError) -> None:
        """End it by what went wrong with it alone."""
        self.finish, self.error = "error", error
