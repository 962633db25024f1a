"""The requests that a comparison would send to an endpoint, and nothing is sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wenlu.prompting.artifact import Artifact
from wenlu.prompting.backend import Failed, Level, Written
from wenlu.prompting.calibrate import Scoring
from wenlu.prompting.examples import Example
from wenlu.prompting.matrix import Matrix
from wenlu.prompting.strategies import LeastToMost, ReasonThenConstrain
from wenlu.prompting.trial import try_on, unlearned

if TYPE_CHECKING:
    from wenlu.inference.generator import Settings
    from wenlu.inference.score import Query
    from wenlu.prompting.endpoint.endpoint import Endpoint
    from wenlu.prompting.template import Prompt

STEPS = (LeastToMost, ReasonThenConstrain)
"""Strategies that go on with what was written."""


class _Listening:
    """Stands where an endpoint would: what it is asked is noted, and answered by nothing."""

    level = Level.B

    def __init__(self, endpoint: Endpoint, steps: bool):
        """steps: the first text alone can be told, for others go on with it."""
        self.name, self._endpoint, self._steps = endpoint.name, endpoint, steps
        self.heard: list[dict[str, Any]] = []

    def score(self, queries: Sequence[Query], advance: Any = None) -> list[Failed]:
        self.heard += self._endpoint.requests(queries)
        return [Failed("nothing is sent")] * len(queries)

    def generate(self, prompts: Sequence[Prompt], settings: Settings, advance: Any = None) -> list[Written]:
        self.heard += self._endpoint.requests(prompts=prompts, settings=settings)
        one = Written("", "error", 0, 0, error="nothing is sent") if self._steps else Written("", "stop", 0, 0)
        return [one] * len(prompts)


def requests_of(
    matrix: Matrix, prompts: Sequence[Artifact], examples: Sequence[Example]
) -> tuple[list[dict[str, Any]], list[str]]:
    """What is asked of the matrix's endpoint for cells that are not there, each request once, with the prompt that it
    is of; and what cannot be told beforehand, in words."""
    found: dict[str, dict[str, Any]] = {}
    untold, probed = [], False
    for prompt in prompts:
        steps = prompt.scoring is None and isinstance(prompt.way, STEPS)
        listening = _Listening(matrix.backend, steps)
        prompt = matrix.known(prompt, examples)
        if unlearned(prompt):
            prompt = replace(prompt, scoring=Scoring("sum"))  # It asks the same, of all examples.
            asked = list(examples)
        else:
            asked = matrix.missing(prompt, examples)
        if asked:
            try_on(prompt, listening, asked, matrix.embed)
        probed |= prompt.scoring is not None and not all(request["kept"] for request in listening.heard)
        for request in listening.heard:
            place = json.dumps([request["url"], request["body"]], sort_keys=True)
            found.setdefault(place, {"prompt": prompt.name, **request})
        if steps:
            untold.append(f"{prompt.name}: its further requests go on with what is written to these")
    if probed:
        untold.insert(0, "before these, four to six short requests verify what the endpoint can do")
    return list(found.values()), untold
