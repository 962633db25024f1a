"""The next token of texts side by side: each by its own strategy, adjustments and constraint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wenlu.base.errors import UserError
from wenlu.inference.constrain import masked
from wenlu.inference.sample import EPSILON, Strategy
from wenlu.inference.text import Request, Text

if TYPE_CHECKING:
    from jaxtyping import Float

NEAR = 2 * EPSILON
"""2 ε of law 8: a choice with a smaller margin may come out otherwise beside other texts, or without a cache."""

Chosen = tuple[int, float] | UserError
"""An id and its margin (`sample.Choice`), or why none can be chosen."""


def go_on(texts: Sequence[Text], logits: Float[Tensor, "rows vocab"]) -> None:
    """Add the next token to each text, from its finite logits; a text for which there is none fails, alone."""
    generators = [text.request.generator for text in texts]
    found = chosen([text.request for text in texts], [text.ids for text in texts], logits, generators)
    for text, choice, row in zip(texts, found, logits, strict=True):
        if isinstance(choice, UserError):
            text.fail(choice)
            continue
        try:
            _add(text, choice[0], choice[1] < NEAR, row)
        except UserError as error:
            text.fail(error)


def chosen(
    requests: Sequence[Request],
    written: Sequence[Sequence[int]],
    logits: Float[Tensor, "rows vocab"],
    generators: Sequence[torch.Generator | None],
) -> list[Chosen]:
    """What comes after what is written for each request; those with the same strategy are drawn together."""
    logits, errors = _adjusted(logits, requests, written)
    found: list[Chosen | None] = [errors.get(row) for row in range(len(requests))]
    alike: dict[Strategy, list[int]] = {}
    for row, request in enumerate(requests):
        if found[row] is None:
            alike.setdefault(request.strategy, []).append(row)
    for strategy, rows in alike.items():
        for row, choice in zip(rows, _drawn(strategy, rows, logits, generators), strict=True):
            found[row] = choice
    return found  # type: ignore[return-value]  # every row has been given one


def _drawn(
    strategy: Strategy, rows: list[int], logits: Tensor, generators: Sequence[torch.Generator | None]
) -> list[Chosen]:
    try:
        of_rows = logits if len(rows) == len(logits) else logits[rows]
        choice = strategy.choose(of_rows, [generators[row] for row in rows])
    except UserError as error:
        # Nothing is drawn where a row is refused, so that each can be tried by itself.
        return [error] if len(rows) == 1 else [_drawn(strategy, [row], logits, generators)[0] for row in rows]
    return list(zip(choice.ids.tolist(), choice.margin.tolist(), strict=True))


def _adjusted(
    logits: Tensor, requests: Sequence[Request], written: Sequence[Sequence[int]]
) -> tuple[Tensor, dict[int, UserError]]:
    """The same logits where nothing is asked for but the prompt; and the rows whose constraint cannot be kept."""
    changed, errors = None, {}
    for row, request in enumerate(requests):
        if request.adjustments.none and request.matcher is None:
            continue
        changed = logits.float().clone() if changed is None else changed
        if not request.adjustments.none:
            changed[row] = request.adjustments.applied(logits[row], request.ids, written[row])
        if request.matcher is not None:
            try:
                changed[row] = masked(changed[row], request.matcher.allowed()[: logits.shape[1]])
            except UserError as error:
                errors[row] = error
    return logits if changed is None else changed, errors


def _add(text: Text, token: int, near: bool, logits: Tensor) -> None:
    """Note a chosen token, and whether the text ends with it."""
    request = text.request
    if near:
        text.near_ties.append(len(text.ids))
    if token in request.stop_ids:
        text.finish = "eos"
        return
    text.ids.append(token)
    if request.alternatives is not None:
        log_probabilities = logits.float().log_softmax(-1)
        text.log_probabilities.append(log_probabilities[token].item())
        best = log_probabilities.topk(min(request.alternatives, len(logits)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        text.alternatives.append([pair for pair in pairs if pair[1] > -math.inf])  # what is barred is none
    if request.matcher is not None:
        request.matcher.push(token)
        # One that was cancelled while this step was made stays so.
        text.finish = "stop" if request.matcher.done else text.finish
    if len(text.ids) == text.limit:
        text.finish = text.finish or text.last
