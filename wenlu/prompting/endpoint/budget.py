"""What may be spent on an endpoint, and what was: requests, tokens, money; a limit is never passed."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from wenlu.base.config import at_least
from wenlu.base.errors import UserError
from wenlu.prompting.endpoint.address import called

MILLION = 1_000_000


class BudgetSpent(UserError):
    """Another request might pass a limit."""


@dataclass(frozen=True)
class Budget:
    """Limits of one `Endpoint`; None = no limit. What is kept from before costs nothing."""

    requests: int | None = None
    """Most requests, those that are tried again included."""
    tokens: int | None = None
    """Most tokens, read and written."""
    money: float | None = None
    """Most money, in the currency of the prices."""
    prompt_price: float = 0.0
    """Of a million tokens that are read."""
    written_price: float = 0.0
    """Of a million tokens that are written."""
    flags: str = ""
    """As of `Address`."""

    def __post_init__(self):
        section = self.flags or "budget"
        for name in ("requests", "tokens", "money"):
            if getattr(self, name) is not None:
                at_least(section, self, 0, name)
        at_least(section, self, 0, "prompt_price", "written_price")
        if self.money is not None and not self.prompt_price and not self.written_price:
            prices = " and ".join(called(name, self.flags) for name in ("prompt_price", "written_price"))
            raise UserError(f"{section}.money needs prices: give {prices}, of a million tokens each")

    def price(self, prompt_tokens: int, tokens: int) -> float:
        """Of so many tokens."""
        return (prompt_tokens * self.prompt_price + tokens * self.written_price) / MILLION


@dataclass(frozen=True)
class Cost:
    """Of one request: what it may cost at most, or what it did cost."""

    prompt_tokens: int
    tokens: int


class Account:
    """What was spent, and what requests under way may cost at most; several threads may spend."""

    def __init__(self, budget: Budget):
        self.budget = budget
        self.requests = self.prompt_tokens = self.tokens = self.retries = 0
        self.estimated = 0
        """Requests whose answers do not say what they cost: they are taken for the most they may."""
        self._reserved: list[Cost] = []
        self._changed = threading.Condition()

    @property
    def money(self) -> float:
        """Spent, by the prices given."""
        return self.budget.price(self.prompt_tokens, self.tokens)

    def reserve(self, most: Cost, *, again: bool = False) -> None:
        """Set aside what a request may cost, once others are through where that is needed. again: it is a retry.

        Raises BudgetSpent where it would pass a limit whatever they cost.
        """
        limit = self.budget.requests
        with self._changed:
            while reason := self._beyond([*self._reserved, most]):
                if not self._reserved:
                    raise BudgetSpent(f"the budget is spent: {reason}")
                self._changed.wait()
            if limit is not None and self.requests >= limit:
                raise BudgetSpent(f"the budget is spent: requests must be no more than {limit}")
            self._reserved.append(most)
            self.requests += 1
            self.retries += again

    def take_back(self, most: Cost, *, again: bool = False) -> None:
        """What was set aside is not sent after all."""
        with self._changed:
            self.requests -= 1
            self.retries -= again
        self.settle(most, None)

    def settle(self, most: Cost, found: Cost | None, *, known: bool = True) -> None:
        """A request is through. found: what it cost; None where it was refused and cost nothing."""
        with self._changed:
            self._reserved.remove(most)
            if found is not None:
                self.prompt_tokens += found.prompt_tokens
                self.tokens += found.tokens
                self.estimated += not known
            self._changed.notify_all()

    def _beyond(self, under_way: list[Cost]) -> str:
        """Which limit might be passed; empty where none is."""
        budget, last = self.budget, under_way[-1]
        prompt = self.prompt_tokens + sum(cost.prompt_tokens for cost in under_way)
        made = self.tokens + sum(cost.tokens for cost in under_way)
        if budget.tokens is not None and prompt + made > budget.tokens:
            spent, more = self.prompt_tokens + self.tokens, last.prompt_tokens + last.tokens
            return f"{spent} of {budget.tokens} tokens are used, and the next request may need {more}"
        if budget.money is not None and budget.price(prompt, made) > budget.money:
            more = budget.price(last.prompt_tokens, last.tokens)
            return f"{self.money:.6g} of {budget.money:.6g} is spent, and the next request may cost {more:.6g}"
        return ""
