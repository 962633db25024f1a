"""What endpoints answer, read strictly: texts, and log-probabilities that are held against the text that was sent.

The forms are those of OpenAI's completions (with `echo`: Brown et al. 2020's way to score) and chat completions, as
servers give them; what is missing, miscounted or impossible is refused, so that no score rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wenlu.base.errors import UserError
from wenlu.prompting.backend import Written
from wenlu.prompting.endpoint.spelling import TORN, ends, first_beyond, token_bytes

_ABOVE_ZERO = 1e-3
"""A log-probability may be so far above 0 by rounding."""
WRITES = "what it writes (level D): leave out alternatives"


@dataclass(frozen=True)
class Echo:
    """The tokens of a text that was sent, as an endpoint gives them back."""

    tokens: tuple[str, ...]
    """As they are written in the answer; without one that begins a document."""
    ends: tuple[tuple[int, int], ...]
    """The byte of the text at which each ends (`spelling.ends`)."""
    log_probabilities: tuple[float | None, ...]
    """In nats; None for the first where nothing stands before it."""
    best: tuple[float | None, ...]
    """Those of the likeliest token at each place; None where the endpoint does not say."""

    def border(self, prefix: str) -> int | None:
        """Number of the first token that is not the prefix's alone; None where that cannot be told."""
        return first_beyond(self.ends, len(prefix.encode()))

    def after(self, border: int) -> tuple[float, ...]:
        """The log-probabilities from a token on. Raises UserError for a first token, of which there is none."""
        values = tuple(value for value in self.log_probabilities[border:] if value is not None)
        if len(values) < len(self.tokens) - border:
            raise UserError(
                "the endpoint gives no log-probability of a text's first token, for nothing stands before it: "
                "write the prompts so that something does"
            )
        return values

    def greedy(self, border: int) -> bool | None:
        """Whether each token from this on is the likeliest; None where the endpoint does not say."""
        pairs = list(zip(self.after(border), self.best[border:], strict=True))
        if any(best is not None and best > value for value, best in pairs):
            return False
        return None if any(best is None for _, best in pairs) else True


def read_echo(answer: Any, text: str) -> Echo:
    """The tokens of `text`, which was sent with `echo` and `logprobs`, at most one more token being asked for.

    Raises UserError where there are none, where their number is not what the endpoint counts, where a log-probability
    is none, not finite or above 0, where the very first token has one, and where they do not spell the text.
    """
    lists = _asked(_choice(answer), "prompts (no level B): texts cannot be scored here")
    tokens, values, top = _lists(lists)
    counted, made = usage(answer)
    if counted is not None and not counted <= len(tokens) <= counted + max(1, made or 0):
        raise UserError(
            f"the endpoint counts {counted} tokens in the prompt, but gives log-probabilities of {len(tokens)}"
        )
    begins, places = _places(tokens, text, counted)
    for number, value in enumerate(values[: begins + len(places)]):
        if number == 0 and value is not None:
            raise UserError(f"the endpoint gives a log-probability ({value}) to a first token, which follows nothing")
        if number > 0:
            _check(value, f"token {number} of the prompt ({tokens[number]!r})")
    own = slice(begins, begins + len(places))
    best = [_best(token, likeliest) for token, likeliest in zip(tokens, top, strict=True)]
    return Echo(tuple(tokens[own]), tuple(places), tuple(values[own]), tuple(best[own]))


def read_completion(answer: Any, log_probabilities: bool) -> Written:
    """What was written after a text. Raises UserError where something is missing."""
    choice = _choice(answer)
    text = _field(choice, "text", str, "choices[0].text")
    values: list[Any] = []
    alternatives: list[tuple[tuple[str, float], ...]] = []
    if log_probabilities:
        _, values, top = _lists(_asked(choice, WRITES))
        alternatives = [_ordered([(_shown(name), value) for name, value in place.items()]) for place in top]
    return _written(answer, choice, text, values, alternatives)


def read_chat(answer: Any, log_probabilities: bool) -> Written:
    """What the assistant said. Raises UserError where something is missing."""
    choice = _choice(answer)
    message = _field(choice, "message", Mapping, "choices[0].message")
    text = _field(message, "content", str, "choices[0].message.content")
    values: list[Any] = []
    alternatives: list[tuple[tuple[str, float], ...]] = []
    if log_probabilities:
        for place in _field(_asked(choice, WRITES), "content", list, "logprobs.content"):
            if not isinstance(place, Mapping):
                raise UserError("the endpoint's answer has no object at each place of logprobs.content")
            values.append(place.get("logprob"))
            top = place.get("top_logprobs") or []
            alternatives.append(_ordered([(entry.get("token"), entry.get("logprob")) for entry in top]))
    return _written(answer, choice, text, values, alternatives)


def usage(answer: Any) -> tuple[int | None, int | None]:
    """Tokens of the prompt and of what was written, as the endpoint counts them; None where it does not say."""
    counts = answer.get("usage") if isinstance(answer, Mapping) else None
    counts = counts if isinstance(counts, Mapping) else {}
    found = [counts.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, made = (count if isinstance(count, int) and count >= 0 else None for count in found)
    return prompt, made


def _written(
    answer: Any, choice: Mapping, text: str, values: list[Any], alternatives: list[tuple[tuple[str, float], ...]]
) -> Written:
    prompt, made = usage(answer)
    for number, value in enumerate(values):
        _check(value, f"token {number} of what was written")
    if values and made is not None and abs(len(values) - made) > 1:  # one more or less: the token that ends a text
        raise UserError(f"the endpoint wrote {made} tokens, but gives log-probabilities of {len(values)}")
    finish = _field(choice, "finish_reason", str, "choices[0].finish_reason")
    found = tuple(alternatives) if any(alternatives) else ()
    return Written(text, finish, prompt, made, tuple(map(float, values)), found)


def _asked(choice: Mapping, of: str) -> Mapping:
    if not isinstance(choice.get("logprobs"), Mapping):
        raise UserError(f"the endpoint gives no log-probabilities of {of}")
    return choice["logprobs"]


def _lists(lists: Mapping) -> tuple[list[str], list[Any], list[Mapping[str, Any]]]:
    """Tokens, their log-probabilities, and those of the likeliest at each place (nothing where it is not said)."""
    tokens, values = (_field(lists, name, list, f"logprobs.{name}") for name in ("tokens", "token_logprobs"))
    top = lists.get("top_logprobs") or [None] * len(tokens)
    if not len(tokens) == len(values) == len(top):
        raise UserError(
            f"the endpoint's answer has {len(tokens)} tokens, {len(values)} log-probabilities and likeliest ones at "
            f"{len(top)} places"
        )
    if not all(isinstance(token, str) for token in tokens):
        raise UserError("the endpoint's answer names tokens that are no texts")
    likeliest = [place if isinstance(place, Mapping) else {} for place in top]
    for place in likeliest:
        for name, value in place.items():
            _check(value, f"a likely token ({name!r})")
    return tokens, values, likeliest


def _choice(answer: Any) -> Mapping:
    choices = _field(answer, "choices", list, "choices")
    if len(choices) != 1 or not isinstance(choices[0], Mapping):
        raise UserError(f"the endpoint's answer has {len(choices)} choices instead of 1")
    return choices[0]


def _field(holder: Any, name: str, kind: type, place: str) -> Any:
    value = holder.get(name) if isinstance(holder, Mapping) else None
    if not isinstance(value, kind):
        raise UserError(f"the endpoint's answer has no {place} (there is {str(value)[:80]!r})")
    return value


def _check(value: Any, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value <= _ABOVE_ZERO:
        raise UserError(f"the endpoint gives {what} the log-probability {value}, which is none")


def _ordered(pairs: list[tuple[Any, Any]]) -> tuple[tuple[str, float], ...]:
    """The likeliest first."""
    for name, value in pairs:
        if not isinstance(name, str):
            raise UserError(f"the endpoint names {name!r} as a token, which is no text")
        _check(value, f"a likely token ({name!r})")
    return tuple(sorted(pairs, key=lambda pair: -pair[1]))


def _shown(token: str) -> str:
    piece = token_bytes(token)
    return token if piece is None else piece.decode("utf-8", "replace")


def _best(token: str, likeliest: Mapping[str, float]) -> float | None:
    """Tokens that are shown as parts of characters may share one entry: then the likeliest is not known."""
    return max(likeliest.values()) if likeliest and (TORN not in token or set(likeliest) != {token}) else None


def _places(tokens: Sequence[str], text: str, counted: int | None) -> tuple[int, list[tuple[int, int]]]:
    """How many tokens begin the document (0 or 1), and where those of the text end."""
    for begins in (0, 1):
        if counted is not None:
            found = ends(tokens[begins:counted], text)
        else:
            lengths = [range(begins, len(tokens) + 1), ()][any(TORN in token for token in tokens)]
            found = next((found for n in lengths if (found := ends(tokens[begins:n], text)) is not None), None)
        if found is not None:
            return begins, found
    raise UserError(f"the endpoint's tokens do not spell the text that was sent ({text[:40]!r})")
