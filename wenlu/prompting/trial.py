"""A prompt tried on examples: what was answered to each, and whether that is right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wenlu.base.errors import UserError
from wenlu.prompting.artifact import Artifact, ModelMark, Spent
from wenlu.prompting.asking import readings
from wenlu.prompting.calibrate import Batch, chosen
from wenlu.prompting.examples import Example
from wenlu.prompting.writing import Terms, question

if TYPE_CHECKING:
    from wenlu.prompting.backend import Backend
    from wenlu.prompting.similarity import Embed


@dataclass(frozen=True)
class Cell:
    """What came of one prompt on one example."""

    value: float
    """1 where the answer is right, else 0."""
    answer: str | None
    """None where the written text holds none."""
    tokens: int = 0
    """Written."""
    probabilities: tuple[float, ...] = ()
    """Of the choices by their scores, where they were scored."""


def bare(prompt: Artifact) -> Artifact:
    """The prompt without what its answers do not depend on: name, model, splits, what it cost, its verdict."""
    return replace(
        prompt, name="-", demonstrations=prompt.compared, model=ModelMark(), splits=(), spent=Spent(), verdict=None
    )


def fitted(prompt: Artifact, backend: Backend, examples: Sequence[Example], embed: Embed | None = None) -> Artifact:
    """The prompt with the mean that batch calibration takes off, where it needs one and has none.

    It is learned from the questions alone: the examples' answers are not used.
    """
    if prompt.scoring is None or prompt.scoring.kind != "batch" or prompt.prior is not None:
        return prompt
    score = prompt.scoring.score
    assert isinstance(score, Batch)
    found = readings(backend, [score], prompt.template, examples, prompt.chooser(embed))
    return replace(prompt, prior=score.prior(found[score.name]))


def try_on(prompt: Artifact, backend: Backend, examples: Sequence[Example], embed: Embed | None = None) -> list[Cell]:
    """What the prompt comes to on each example; an example's cell does not depend on the others.

    Raises UserError for an example without a right answer, a score of a batch without its mean (`fitted`), and for
    what the backend cannot do.
    """
    for example in examples:
        _ = example.right
    choose = prompt.chooser(embed)
    if prompt.scoring is None:
        questions = [question(prompt.template, example, choose(example)) for example in examples]
        settings = replace(prompt.decoding, stop=prompt.stop).settings
        terms = Terms(prompt.decoding.max_tokens, prompt.extractor, settings)
        answers = prompt.way.answer(backend, questions, terms).answers
        return [
            Cell(float(prompt.extractor.is_right(answer.value, example)), answer.value, answer.tokens)
            for answer, example in zip(answers, examples, strict=True)
        ]
    score = prompt.scoring.score
    if isinstance(score, Batch) and prompt.prior is None:
        raise UserError(f"the prompt {prompt.name} is scored by batch calibration and keeps no mean: fit it first")
    found = readings(backend, [score], prompt.template, examples, choose)[score.name]
    values = score.values(found, prompt.prior) if isinstance(score, Batch) else score.values(found)
    return [
        Cell(float(choice == example.gold), example.choices[choice], 0, softmax(row))
        for choice, row, example in zip(chosen(values), values, examples, strict=True)
    ]


def softmax(values: Sequence[float]) -> tuple[float, ...]:
    """Σ = 1; the larger the value, the larger the part."""
    top = max(values)
    parts = [math.exp(value - top) for value in values]
    whole = math.fsum(parts)
    return tuple(part / whole for part in parts)
