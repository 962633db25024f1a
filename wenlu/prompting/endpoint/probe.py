"""What an endpoint can do, verified: one that accepts a request for log-probabilities may still not give them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wenlu.base.errors import UserError
from wenlu.prompting.backend import Level
from wenlu.prompting.endpoint.client import Refused
from wenlu.prompting.endpoint.reply import Echo, read_chat, read_completion, read_echo

COMMON = "Two and two are four. 二加二等于四。"
TEXTS = (COMMON + " The stove is warm.", COMMON + " 炉子是热的。")
"""They begin alike: what they have in common must be equally probable in both."""
CANNOT = frozenset({400, 404, 405, 415, 422, 500, 501})
"""Statuses by which servers say that they do not know a path or a parameter."""
NEAR = 0.25
"""Nats by which a server's own rounding (bf16, other shapes) may change a log-probability."""


@dataclass(frozen=True)
class Verified:
    """What a probe has found."""

    level: Level
    texts: bool
    """Whether it goes on with texts (/completions)."""
    conversations: bool
    """Whether it answers conversations (/chat/completions)."""
    notes: tuple[str, ...]
    """Why it can do no more."""


def verify(echo: Callable[[str], Any], text: Callable[[bool], Any], chat: Callable[[bool], Any]) -> Verified:
    """Find an endpoint's level by asking it.

    echo: the answer to a text sent for its own log-probabilities. text, chat: answers of a few tokens to a text and to
    a conversation, with or without log-probabilities. Each raises `Refused` where the endpoint says no. Raises
    UserError where it answers neither.
    """
    notes: list[str] = []

    def works(what: str, ask: Callable[[], Any], read: Callable[[Any], Any]) -> bool:
        try:
            answer = ask()
        except Refused as error:
            if error.status not in CANNOT:
                raise
            notes.append(f"{what}: {error}")
            return False
        try:
            read(answer)
        except UserError as error:
            notes.append(f"{what}: {error}")
            return False
        return True

    scores = works("scores", lambda: [echo(one) for one in TEXTS], check_scores)
    told, plain = [], []
    for what, ask, read in (("texts", text, read_completion), ("conversations", chat, read_chat)):
        told.append(
            works(f"{what}, with log-probabilities", lambda ask=ask: ask(True), lambda a, read=read: read(a, True))
        )
        plain.append(told[-1] or works(what, lambda ask=ask: ask(False), lambda a, read=read: read(a, False)))
    if not any((scores, *plain)):
        raise UserError("the endpoint answers neither texts nor conversations: " + "; ".join(notes))
    level = Level.B if scores else Level.C if any(told) else Level.D
    return Verified(level, plain[0], plain[1], tuple(notes))


def check_scores(answers: list[Any]) -> None:
    """Raises UserError where log-probabilities of `TEXTS` cannot be a model's: besides what `read_echo` refuses, where
    they are all the same, and where one beginning has two."""
    first, second = (read_echo(answer, text) for answer, text in zip(answers, TEXTS, strict=True))
    values = {value for value in first.log_probabilities if value is not None}
    if len(values) < 2:
        raise UserError(
            f"the endpoint gives every token of a prompt the same log-probability ({min(values, default=None)})"
        )
    for number in range(min(_common(first), _common(second))):
        a, b = first.log_probabilities[number], second.log_probabilities[number]
        alike = first.tokens[number] == second.tokens[number]
        if alike and a is not None and b is not None and abs(a - b) > NEAR:
            raise UserError(f"the endpoint gives one token after one text two log-probabilities ({a} and {b})")
        if not alike:
            break


def _common(echo: Echo) -> int:
    """How many tokens lie within what both texts begin with."""
    return sum(end[1] <= len(COMMON.encode()) for end in echo.ends)
