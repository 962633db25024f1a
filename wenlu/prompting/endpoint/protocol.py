"""What is asked of an endpoint, in OpenAI's forms: completions and chat completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wenlu.base.errors import UserError
from wenlu.prompting.endpoint.address import Address
from wenlu.prompting.endpoint.budget import Cost
from wenlu.prompting.endpoint.client import Request
from wenlu.tokenization.encoder import require_unicode

if TYPE_CHECKING:
    from wenlu.inference.generator import Settings
    from wenlu.prompting.backend import Prompt
    from wenlu.tokenization.chat_format import Message

COMPLETIONS, CHAT = "/completions", "/chat/completions"
SET_HERE = (
    "model prompt messages echo stream n best_of logprobs top_logprobs max_tokens max_completion_tokens temperature "
    "top_p seed stop presence_penalty frequency_penalty"
).split()
"""Fields that cannot be given as `extra`."""
_ADDED = 64
"""Tokens that a chat template or a tokenizer may add to a message."""


def check_extra(address: Address, extra: Mapping[str, Any]) -> None:
    """Raises UserError for fields that are set here."""
    if own := sorted(set(SET_HERE) & set(extra)):
        raise UserError(f"{address.called('extra')} holds {', '.join(own)}, which settings decide: leave it out")


def echo_request(address: Address, extra: Mapping[str, Any], text: str) -> Request:
    """For the log-probabilities of a text's own tokens.

    One token is asked for besides: some servers refuse to write none, some take 0 for no limit.
    """
    require_unicode(text)
    if not text:
        raise UserError("there is nothing to score in an empty text: give a prefix or a continuation")
    body = {"model": address.model, "prompt": text, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    return Request(COMPLETIONS, {**extra, **body}, Cost(_most_tokens(text), 1))


def text_request(address: Address, extra: Mapping[str, Any], prompt: Prompt, settings: Settings) -> Request:
    """For a text after a prompt. Raises UserError for settings that the protocol does not know."""
    check_settings(address, settings)
    body: dict[str, Any] = {"model": address.model, address.limit_name: settings.max_tokens}
    body["temperature"] = settings.temperature
    if settings.temperature > 0:
        body["seed"] = settings.seed
        if settings.top_p != 1:
            body["top_p"] = settings.top_p
    if settings.stop:
        body["stop"] = list(settings.stop)
    for name in ("presence_penalty", "frequency_penalty"):
        if value := getattr(settings.adjustments, name):
            body[name] = value
    told = settings.alternatives
    if isinstance(prompt, str):
        require_unicode(prompt)
        body |= {"prompt": prompt} | ({} if told is None else {"logprobs": told})
        return Request(COMPLETIONS, {**extra, **body}, Cost(_most_tokens(prompt), settings.max_tokens))
    body |= {"messages": _messages(prompt)} | ({} if told is None else {"logprobs": True, "top_logprobs": told})
    read = sum(_most_tokens(message["content"]) for message in prompt) + _ADDED
    return Request(CHAT, {**extra, **body}, Cost(read, settings.max_tokens))


def check_settings(address: Address, settings: Settings) -> None:
    """Raises UserError, which names what the protocol has no field for."""
    adjustments = settings.adjustments
    asked = {
        "beams": settings.beams > 1,
        "a constraint": settings.constraint is not None,
        "top_k": settings.top_k != 0,
        "min_p": settings.min_p != 0,
        "repetition_penalty": adjustments.repetition_penalty != 1,
        "logit_bias": bool(adjustments.logit_bias),
    }
    if unknown := [name for name, wanted in asked.items() if wanted]:
        raise UserError(
            f"endpoints have no {', '.join(unknown)} in common: leave it out, take a model's folder, or give the "
            f"field that this server has for it as {address.called('extra')}"
        )


def _messages(prompt: Sequence[Message]) -> list[dict[str, str]]:
    if not prompt:
        raise UserError("a conversation needs at least one message: give it what the user says")
    for message in prompt:
        require_unicode(message["content"])
    return [dict(message) for message in prompt]


def _most_tokens(text: str) -> int:
    """Of a text: each token has at least one byte of it, but for those that are added."""
    return len(text.encode()) + _ADDED
