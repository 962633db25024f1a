"""A prompt tried on examples: what was answered to each, and whether that is right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wenlu.base.errors import UserError
from wenlu.base.log import say
from wenlu.prompting.artifact import Artifact, ModelMark, Spent
from wenlu.prompting.asking import readings
from wenlu.prompting.backend import Failed
from wenlu.prompting.calibrate import Batch, Reading, chosen
from wenlu.prompting.examples import Example
from wenlu.prompting.writing import Terms, question

if TYPE_CHECKING:
    from wenlu.prompting.backend import Backend
    from wenlu.prompting.similarity import Embed


@dataclass(frozen=True)
class Cell:
    """What came of one prompt on one example."""

    value: float
    """1 where the answer is right, else 0; NaN where it failed."""
    answer: str | None
    """None where the written text holds none."""
    tokens: int = 0
    """Written."""
    probabilities: tuple[float, ...] = ()
    """Of the choices by their scores, where they were scored."""
    failed: str = ""
    """Why there is no answer to judge."""


MOST_FAILED = 0.1
"""Part of the examples that may have failed with some prompt before prompts are no longer compared on the others; a
single one may."""


def lost(why: str) -> Cell:
    """Of an answer that failed."""
    return Cell(math.nan, None, failed=why)


def too_many(failed: int, examples: int) -> bool:
    """Whether so many failures leave no fair sample."""
    return failed == examples or failed > max(1, MOST_FAILED * examples)


def answered(failed: Mapping[int, str], examples: Sequence[Example]) -> list[int]:
    """The numbers of the examples that have not failed; failed: number of an example, and why.

    Those that have are said. Raises UserError where they are `too_many`.
    """
    if failed:
        first = min(failed)
        told = f"{len(failed)} of {len(examples)} examples failed with some prompt"
        if too_many(len(failed), len(examples)):
            raise UserError(
                f"{told}, more than {MOST_FAILED:.0%}, so that nothing is judged by the others (example "
                f"{examples[first].id}: {failed[first]}); the same command tries them again, or leave them out"
            )
        say(f"{told} and are left out; the same command tries them again", style="yellow")
    return [number for number in range(len(examples)) if number not in failed]


def always(cells: Sequence[Cell], examples: Sequence[Example]) -> str | None:
    """The one answer that is given to every example, though not all have it; None where there is none such."""
    answers = {cell.answer for cell in cells}
    alone = len(answers) == 1 and len(cells) > 1 and len({example.right for example in examples}) > 1
    return next(iter(answers)) if alone else None


def bare(prompt: Artifact) -> Artifact:
    """The prompt without what its answers do not depend on: name, model, splits, what it cost, its verdict."""
    return replace(
        prompt, name="-", demonstrations=prompt.compared, model=ModelMark(), splits=(), spent=Spent(), verdict=None
    )


def unlearned(prompt: Artifact) -> bool:
    """Whether batch calibration wants a mean that the prompt has not."""
    return prompt.scoring is not None and prompt.scoring.kind == "batch" and prompt.prior is None


def learned(
    prompt: Artifact, backend: Backend, examples: Sequence[Example], embed: Embed | None = None
) -> tuple[Artifact, list[Cell]]:
    """A prompt that wants a mean with the one of these examples, and what it comes to on them: asked once for both.

    The mean is learned from the questions alone: their answers are not used.
    """
    score = prompt.scoring.score
    assert isinstance(score, Batch)
    found = readings(backend, [score], prompt.template, examples, prompt.chooser(embed))[score.name]
    whole = answered({n: str(one) for n, one in enumerate(found) if isinstance(one, Failed)}, examples)
    prompt = replace(prompt, prior=score.prior([found[number] for number in whole]))
    return prompt, _cells(prompt, found, examples)


def try_on(prompt: Artifact, backend: Backend, examples: Sequence[Example], embed: Embed | None = None) -> list[Cell]:
    """What the prompt comes to on each example; an example's cell does not depend on the others.

    Raises UserError for an example without a right answer, a score of a batch without its mean (`learned`), and for
    what the backend cannot do; Failed where no score came.
    """
    for example in examples:
        _ = example.right
    choose = prompt.chooser(embed)
    if prompt.scoring is None:
        questions = [question(prompt.template, example, choose(example)) for example in examples]
        settings = replace(prompt.decoding, stop=prompt.stop).settings
        terms = Terms(prompt.decoding.max_tokens, prompt.extractor, settings)
        answers, asked = prompt.way.answer(backend, questions, terms).answers, prompt.template.as_answered
        return [
            lost(answer.failed)
            if answer.failed
            else Cell(float(prompt.extractor.is_right(answer.value, asked(example))), answer.value, answer.tokens)
            for answer, example in zip(answers, examples, strict=True)
        ]
    if unlearned(prompt):
        raise UserError(f"the prompt {prompt.name} is scored by batch calibration and keeps no mean: learn it first")
    score = prompt.scoring.score
    return _cells(prompt, readings(backend, [score], prompt.template, examples, choose)[score.name], examples)


def _cells(prompt: Artifact, found: Sequence[Reading | Failed], examples: Sequence[Example]) -> list[Cell]:
    """What readings of a prompt that scores choices come to."""
    whole = [number for number, one in enumerate(found) if not isinstance(one, Failed)]
    values = prompt.scoring.score.values([found[number] for number in whole], prompt.prior)
    cells = [lost(str(one)) for one in found]
    for number, choice, row in zip(whole, chosen(values), values, strict=True):
        example = examples[number]
        cells[number] = Cell(float(choice == example.gold), example.choices[choice], 0, softmax(row))
    return cells


def softmax(values: Sequence[float]) -> tuple[float, ...]:
    """Σ = 1; the larger the value, the larger the part."""
    top = max(values)
    parts = [math.exp(value - top) for value in values]
    whole = math.fsum(parts)
    return tuple(part / whole for part in parts)
