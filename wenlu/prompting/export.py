"""A kept prompt as a plain request in OpenAI's form, for any client; and what such a request cannot say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wenlu.prompting.artifact import Artifact
from wenlu.prompting.examples import Example
from wenlu.prompting.strategies import Direct

if TYPE_CHECKING:
    from wenlu.prompting.similarity import Embed


@dataclass(frozen=True)
class Export:
    """A request, where it goes, and what is lost."""

    path: str
    """/completions or /chat/completions, after the endpoint's address."""
    body: dict[str, Any]
    """As JSON."""
    unsaid: tuple[str, ...]
    """What the prompt is and the request cannot say, in words."""


def export(artifact: Artifact, example: Example, model: str, embed: Embed | None = None) -> Export:
    """The request for one example, to a model of that name.

    A text goes to completions, where the server puts the beginning token before it; a conversation to chat
    completions, where the server applies the model's own chat template. So both are read as `rendering.render` says.
    """
    decoding = artifact.decoding
    prompt = artifact.prompt(example, embed)
    body: dict[str, Any] = {"model": model}
    body |= {"prompt": prompt} if isinstance(prompt, str) else {"messages": [dict(message) for message in prompt]}
    body |= {"max_tokens": decoding.max_tokens, "temperature": decoding.temperature}
    if decoding.temperature > 0:
        body |= {"top_p": decoding.top_p, "seed": decoding.seed}
    unsaid = []
    form = getattr(artifact.way, "form", None) if isinstance(artifact.way, Direct) else None
    constrained = form is not None and form.kind != "free"
    if artifact.stop:
        body["stop"] = list(artifact.stop)
    if constrained and form.kind == "json_schema":
        schema = {"name": "answer", "strict": True, "schema": json.loads(form.source)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif constrained:
        unsaid.append(f"the answer's form ({form.kind}) is not kept: take it out of the text by the extractor")
    if not isinstance(artifact.way, Direct):
        unsaid.append(
            f"the strategy {artifact.way.name} is several requests or adds to the prompt: this is the prompt alone"
        )
    if artifact.scoring is not None:
        unsaid.append(f"the choice is made by the score {artifact.scoring.kind}; here the model writes its answer")
    if decoding.temperature > 0:
        unsaid += [f"{name} is no field of the form" for name in ("top_k", "min_p") if getattr(decoding, name)]
    return Export("/completions" if isinstance(prompt, str) else "/chat/completions", body, tuple(unsaid))
