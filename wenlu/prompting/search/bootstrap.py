"""Demonstrations that a model writes itself: of its own answers, those that came out right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wenlu.base.errors import UserError
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Template
from wenlu.prompting.writing import Terms, question

if TYPE_CHECKING:
    from wenlu.prompting.backend import Backend
    from wenlu.prompting.strategies import Strategy

FIELD = "reasoning"
"""The field under which a demonstration holds what was written."""


@dataclass(frozen=True)
class Bootstrapped:
    """What came of it."""

    examples: tuple[Example, ...]
    """Those answered rightly, each with what was written under `FIELD`."""
    tried: int
    tokens: int
    """Written in all."""


def bootstrap(
    backend: Backend, strategy: Strategy, template: Template, examples: Sequence[Example], terms: Terms
) -> Bootstrapped:
    """Each example answered, without demonstrations, and kept where the answer is right.

    examples: of the train split alone, for their answers decide. Sources: STaR, Zelikman et al. 2022, arXiv 2203.14465;
    demonstrations of DSPy, Khattab et al. 2023, arXiv 2310.03714. Raises UserError for an example that has a field of
    that name already.
    """
    for example in examples:
        if FIELD in example.fields:
            raise UserError(f"example {example.id} has a field {FIELD!r} already, which was to be written: rename it")
    found = strategy.answer(backend, [question(template, example) for example in examples], terms)
    kept = []
    for example, answer in zip(examples, found.answers, strict=True):
        if answer.text.strip() and terms.extractor.is_right(answer.value, template.as_answered(example)):
            kept.append(replace(example, fields={**example.fields, FIELD: answer.text.strip()}))
    return Bootstrapped(tuple(kept), len(examples), found.tokens)


def showing(template: Template) -> Template:
    """The template whose demonstrations answer with what was written."""
    return replace(template, answer="{{ " + FIELD + " }}")
