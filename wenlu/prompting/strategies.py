"""Ways to answer: at once, after thinking, by many voices, by steps; compared at an equal number of written tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from wenlu.base.config import at_least, from_dict, to_dict
from wenlu.base.errors import UserError, did_you_mean
from wenlu.prompting.template import Prompt, appended
from wenlu.prompting.writing import FREE, ONE_OF_THE_CHOICES, Answers, Desk, Form, Question, Terms

if TYPE_CHECKING:
    from wenlu.prompting.backend import Backend

STEP_BY_STEP = " Let's think step by step."
"""Kojima et al. 2022, arXiv 2205.11916."""
STEP_BY_STEP_ZH = "让我们一步一步地思考。"


class Strategy(Protocol):
    """One way to answer."""

    name: str

    def answer(self, backend: Backend, questions: Sequence[Question], terms: Terms) -> Answers:
        """To each question, within the terms' budget. Raises UserError for one that is too little."""


@dataclass(frozen=True)
class Direct:
    """The answer at once."""

    form: Form = FREE
    name = "direct"

    def answer(self, backend: Backend, questions: Sequence[Question], terms: Terms) -> Answers:
        """One text a question."""
        desk = Desk(backend, questions, terms)
        desk.write(dict(enumerate(question.prompt for question in questions)), terms.budget, form=self.form)
        return desk.answers(self.name)


@dataclass(frozen=True)
class ChainOfThought:
    """Thoughts first, then the answer, in one text (Wei et al. 2022, arXiv 2201.11903; Kojima et al. 2022)."""

    trigger: str = STEP_BY_STEP
    """Added to the prompt; empty where the demonstrations show how to think."""
    name = "chain_of_thought"

    def answer(self, backend: Backend, questions: Sequence[Question], terms: Terms) -> Answers:
        """One text a question."""
        desk = Desk(backend, questions, terms)
        desk.write({n: _added(q.prompt, self.trigger) for n, q in enumerate(questions)}, terms.budget)
        return desk.answers(self.name)


@dataclass(frozen=True)
class SelfConsistency:
    """Several drawn texts, and the answer that most of them give (Wang et al. 2022, arXiv 2203.11171).

    Of answers given equally often the one that came first. A text without an answer is a voice for none.
    """

    samples: int = 5
    temperature: float = 0.7
    trigger: str = STEP_BY_STEP
    name = "self_consistency"

    def __post_init__(self):
        at_least("strategy", self, 2, "samples")
        if self.temperature <= 0:
            raise UserError("at temperature 0 all samples are the same: give a temperature above 0")

    def answer(self, backend: Backend, questions: Sequence[Question], terms: Terms) -> Answers:
        """As many texts a question, each with its part of the budget."""
        if terms.budget < self.samples:
            raise UserError(f"a budget of {terms.budget} tokens is too little for {self.samples} samples: give more")
        desk = Desk(backend, questions, terms)
        prompts = {n: _added(question.prompt, self.trigger) for n, question in enumerate(questions)}
        for sample in range(self.samples):
            seed = desk.settings.seed + sample
            desk.write(prompts, terms.budget // self.samples, temperature=self.temperature, seed=seed)
        return desk.answers(self.name, vote=True)


@dataclass(frozen=True)
class LeastToMost:
    """Easier questions first, each answered with those before it (Zhou et al. 2022, arXiv 2205.10625)."""

    divide: str = "\nList the smaller questions that must be answered first, one a line:\n"
    finish: str = "\nTherefore, the answer to the first question is"
    most: int = 3
    """Smaller questions that are asked; what is listed beyond them is left out."""
    share: float = 0.25
    """Part of the budget for the list."""
    name = "least_to_most"

    def __post_init__(self):
        at_least("strategy", self, 1, "most")
        if not 0 < self.share < 1 or not self.divide.strip() or not self.finish.strip():
            raise UserError("least to most needs a text to divide and one to finish, and a share between 0 and 1")

    def answer(self, backend: Backend, questions: Sequence[Question], terms: Terms) -> Answers:
        """A list of smaller questions, an answer to each, and one to the question itself."""
        if terms.budget < self.most + 2:
            raise UserError(f"a budget of {terms.budget} tokens is too little for {self.most + 2} texts: give more")
        desk = Desk(backend, questions, terms)
        asked = {n: _added(question.prompt, self.divide) for n, question in enumerate(questions)}
        lists = desk.write(asked, max(1, int(terms.budget * self.share)))
        steps = {n: smaller_questions(text)[: self.most] for n, text in lists.items()}
        grown = {n: question.prompt for n, question in enumerate(questions)}
        for turn in range(self.most):
            now = {n: _added(grown[n], f"\n\n{step[turn]}\n") for n, step in steps.items() if turn < len(step)}
            parts = {n: desk.left[n] // (len(steps[n]) - turn + 1) for n in now}
            texts = desk.write(now, parts, stop=("\n\n",))
            grown |= {n: _followed(prompt, texts.get(n, "")) for n, prompt in now.items()}
        desk.write({n: _added(prompt, self.finish) for n, prompt in grown.items()}, terms.budget)
        return desk.answers(self.name)


@dataclass(frozen=True)
class ReasonThenConstrain:
    """Thoughts in free form, then the answer alone, in the form asked for.

    A form from the first token on keeps a model from thinking; none at all leaves the answer to be searched for.
    """

    form: Form = ONE_OF_THE_CHOICES
    trigger: str = STEP_BY_STEP
    close: str = "\nTherefore, the answer is"
    """Between thoughts and answer; in a conversation, what the user then says. In Chinese: 因此，答案是"""
    answer_tokens: int = 32
    """Of the budget, for the answer."""
    name = "reason_then_constrain"

    def __post_init__(self):
        at_least("strategy", self, 1, "answer_tokens")
        if self.form.kind == "free":
            raise UserError("reason_then_constrain needs a form for the answer: choices, regex or json_schema")

    def answer(self, backend: Backend, questions: Sequence[Question], terms: Terms) -> Answers:
        """Two texts a question."""
        if terms.budget <= self.answer_tokens:
            raise UserError(
                f"a budget of {terms.budget} tokens leaves none to think with beside {self.answer_tokens} for the "
                "answer: give more, or set answer_tokens lower"
            )
        desk = Desk(backend, questions, terms)
        prompts = {n: _added(question.prompt, self.trigger) for n, question in enumerate(questions)}
        thoughts = desk.write(prompts, terms.budget - self.answer_tokens)
        closing = {n: _added(_followed(prompts[n], text), self.close) for n, text in thoughts.items()}
        desk.write(closing, self.answer_tokens, form=self.form)
        return desk.answers(self.name)


STRATEGIES = {kind.name: kind for kind in (Direct, ChainOfThought, SelfConsistency, LeastToMost, ReasonThenConstrain)}
"""Name → strategy."""


def read_strategy(mapping: Mapping[str, Any]) -> Strategy:
    """What a mapping with `kind` and settings of that kind says; strictly, as `base.config.from_dict`."""
    kind = mapping.get("kind", "direct")
    if kind not in STRATEGIES:
        near = did_you_mean(str(kind), STRATEGIES)
        raise UserError(f"strategy.kind must be one of {', '.join(STRATEGIES)}, not {kind!r}.{near}")
    return from_dict(STRATEGIES[kind], {key: value for key, value in mapping.items() if key != "kind"}, "strategy")


def write_strategy(strategy: Strategy) -> dict[str, Any]:
    """What `read_strategy` reads."""
    return {"kind": strategy.name, **to_dict(strategy)}


def smaller_questions(text: str) -> list[str]:
    """The lines of a list, without numbers and bullets."""
    lines = [re.sub(r"^\s*(?:[-*•]|\(?\d+[.)、]|[一二三四五六七八九十]+、)\s*", "", line) for line in text.splitlines()]
    return [line.strip() for line in lines if line.strip()]


def _added(prompt: Prompt, text: str) -> Prompt:
    """The prompt with more asked: in a conversation, by the user."""
    if isinstance(prompt, str):
        return prompt + text
    if not text.strip():
        return prompt
    if prompt[-1]["role"] == "user":
        return appended(prompt, text.strip())
    return (*prompt, {"role": "user", "content": text.strip()})


def _followed(prompt: Prompt, text: str) -> Prompt:
    """The prompt with what was written after it."""
    return prompt + text if isinstance(prompt, str) else (*prompt, {"role": "assistant", "content": text})
