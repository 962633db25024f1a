"""Prompts compared on the same examples: each with its interval, and a verdict beside the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wenlu.base.config import to_dict
from wenlu.base.errors import UserError
from wenlu.metrics.intervals import Estimate, mean
from wenlu.metrics.permutation import many_against
from wenlu.metrics.verdict import Verdict, verdict
from wenlu.prompting.artifact import Artifact
from wenlu.prompting.examples import Example, content_id
from wenlu.prompting.matrix import Advance, Matrix, complete
from wenlu.prompting.trial import always, bare
from wenlu.prompting.variants import Variant, variants

FEWEST_FORMS = 10
"""Other forms of a prompt that its robustness is told by, at least."""


@dataclass(frozen=True)
class Robustness:
    """The accuracies of a prompt's other forms, its own among them."""

    forms: int
    median: float
    worst: float
    best: float
    worst_form: str
    """Its description."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Row:
    """One prompt."""

    name: str
    accuracy: Estimate
    failed: int
    """Examples to which no answer came; all prompts are compared on those that none of them failed on."""
    always: str | None
    """The one answer that was given to every example, where there was one."""
    unanswered: int
    """Examples to which no answer was found in what was written."""
    tokens: float
    """Written for an example, on average."""
    verdict: Verdict | None
    """Beside the first prompt; None of itself."""
    adjusted: float | None
    """p of no difference, adjusted for so many comparisons (max-T): of several, the verdict goes by it."""
    robustness: Robustness | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "name": self.name,
            "accuracy": self.accuracy.as_dict(),
            "failed": self.failed,
            "always": self.always,
            "unanswered": self.unanswered,
            "tokens": self.tokens,
            "verdict": self.verdict and self.verdict.as_dict(),
            "adjusted_p": self.adjusted,
            "robustness": self.robustness and self.robustness.as_dict(),
        }


def compare(
    matrix: Matrix,
    prompts: Sequence[Artifact],
    examples: Sequence[Example],
    *,
    delta: float = 0.0,
    forms: bool = False,
    advance: Advance | None = None,
) -> list[Row]:
    """A row for each prompt, in their order; the first is what the others are compared with.

    Of several comparisons *better* and *worse* are said only where p adjusted for all of them says so too. delta: the
    loss of accuracy that does not matter. forms: try other forms of each prompt too (`variants`), for its
    robustness. Means that batch calibration takes off are learned from these questions, without their answers.
    Examples that failed with one of the prompts count for none. Raises UserError for two prompts that are the same, or
    of one name, where too many failed, and as `Matrix.cells`.
    """
    check(prompts, examples)
    with matrix.held():
        return _rows(matrix, prompts, examples, delta, forms, advance)


def _rows(
    matrix: Matrix,
    prompts: Sequence[Artifact],
    examples: Sequence[Example],
    delta: float,
    forms: bool,
    advance: Advance | None,
) -> list[Row]:
    prompts = [matrix.fitted(prompt, examples) for prompt in prompts]
    found = matrix.cells(prompts, examples, advance)
    whole = complete(found, examples)
    cells, asked = [[row[number] for number in whole] for row in found], [examples[number] for number in whole]
    values = np.array([[cell.value for cell in row] for row in cells])
    groups = [example.group for example in asked]
    against = many_against(values[0], values[1:], groups) if len(prompts) > 1 else []
    rows = []
    for number, (prompt, of_prompt) in enumerate(zip(prompts, cells, strict=True)):
        adjusted = against[number - 1].adjusted if number else None
        among = adjusted if len(against) > 1 else None
        rows.append(
            Row(
                prompt.name,
                mean(values[number], groups),
                sum(bool(cell.failed) for cell in found[number]),
                always(of_prompt, asked),
                sum(cell.answer is None for cell in of_prompt),
                float(np.mean([cell.tokens for cell in of_prompt])),
                verdict(values[0], values[number], groups, delta, adjusted=among) if number else None,
                adjusted,
                _robustness(matrix, prompt, values[number], examples, advance) if forms else None,
            )
        )
    return rows


def check(prompts: Sequence[Artifact], examples: Sequence[Example]) -> None:
    """Raises UserError for what is wrong with a comparison before any model is asked: two prompts that are the same or
    of one name, and a template that an example does not fill."""
    if not prompts or not examples:
        raise UserError("a comparison wants at least one prompt and one example")
    names: set[str] = set()
    same: dict[str, str] = {}
    for prompt in prompts:
        if prompt.name in names:
            raise UserError(
                f"two prompts have the name {prompt.name!r}: name them apart, so that a table can tell them"
            )
        names.add(prompt.name)
        key = content_id(to_dict(bare(prompt)))
        if key in same:
            raise UserError(f"the prompts {same[key]!r} and {prompt.name!r} are the same: leave one out")
        same[key] = prompt.name
        for example in examples:
            prompt.template.render(example)


def forms_of(prompt: Artifact, examples: Sequence[Example]) -> list[tuple[str, Artifact]]:
    """Other forms of a prompt: what is other, and the prompt."""
    most = max((len(example.choices) for example in examples), default=0)
    ends = () if prompt.scoring else prompt.decoding.stop
    found = [one for one in variants(prompt.template, most) if not one.template.stopped_at_once(ends)]
    if len(found) < FEWEST_FORMS:
        raise UserError(
            f"the prompt {prompt.name} has only {len(found)} other forms, and its robustness is told by "
            f"{FEWEST_FORMS} at least: name its parts by lines such as 'Question: ...', or leave out --forms"
        )
    return [(one.description, _in_form(prompt, one)) for one in found]


def _in_form(prompt: Artifact, form: Variant) -> Artifact:
    """The prompt in another form; a letter is looked for among the form's own."""
    extractor = prompt.extractor
    if form.template.letters != prompt.template.letters:
        extractor = replace(extractor, letters=form.template.letters)
    return replace(prompt, name=f"{prompt.name}/{form.name}", template=form.template, extractor=extractor)


def work(prompts: Sequence[Artifact], examples: Sequence[Example], forms: bool) -> int:
    """Cells that a comparison needs."""
    return len(examples) * sum(1 + (len(forms_of(prompt, examples)) if forms else 0) for prompt in prompts)


def _robustness(
    matrix: Matrix, prompt: Artifact, own: np.ndarray, examples: Sequence[Example], advance: Advance | None
) -> Robustness:
    described = forms_of(prompt, examples)
    others = [matrix.fitted(replace(other, prior=None), examples) for _, other in described]
    means = [float(own.mean()), *np.nanmean(matrix.values(others, examples, advance), 1).tolist()]
    names = ["as it is", *(description for description, _ in described)]
    worst = int(np.argmin(means))
    return Robustness(len(means), float(np.median(means)), means[worst], max(means), names[worst])
