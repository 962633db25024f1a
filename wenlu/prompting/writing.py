"""Texts written for questions within a budget of tokens, counted one by one, and the answers in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from wenlu.base.errors import UserError
from wenlu.prompting.answers import WHOLE_TEXT, Extractor
from wenlu.prompting.backend import Failed
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Prompt, Template

if TYPE_CHECKING:
    from wenlu.inference.constrain import Constraint
    from wenlu.inference.generator import Settings
    from wenlu.prompting.backend import Backend


@dataclass(frozen=True)
class Question:
    """A prompt to be answered by writing."""

    prompt: Prompt
    choices: tuple[str, ...] = ()
    """What the answer is one of."""
    continuations: tuple[str, ...] = ()
    """The same as they are written after the prompt."""


def question(template: Template, example: Example, demonstrations: Sequence[Example] = ()) -> Question:
    """What is asked of an example."""
    prompt = template.render(example, demonstrations)
    if not example.choices:
        return Question(prompt)
    return Question(prompt, template.choice_texts(example), template.continuations(example))


@dataclass(frozen=True)
class Form:
    """What the answer must look like. Raises UserError for what cannot be asked for."""

    kind: Literal["free", "choices", "regex", "json_schema"] = "free"
    """choices: one of the question's own."""
    source: str = ""
    """Of regex, and of json_schema as JSON."""

    def __post_init__(self):
        if (self.kind in ("regex", "json_schema")) != bool(self.source):
            raise UserError("a form has a source where it is a regex or json_schema, and none where free or choices")
        if self.source:
            _ = self.constraint(Question(""))

    def constraint(self, question: Question) -> Constraint | None:
        """What the written text is held to. Raises UserError for choices where the question has none."""
        if self.kind == "free":
            return None
        from wenlu.inference.constrain import Constraint

        if self.kind != "choices":
            return Constraint(self.kind, self.source)
        if not question.choices:
            raise UserError("the answer's form is one of the choices, but a question has none: take another form")
        return Constraint("choices", question.continuations or question.choices)


FREE, ONE_OF_THE_CHOICES = Form(), Form("choices")


@dataclass(frozen=True)
class Terms:
    """On which strategies are compared, the same for each. Raises UserError for a budget of nothing."""

    budget: int
    """Most tokens that may be written for a question, over all texts of a strategy."""
    extractor: Extractor = WHOLE_TEXT
    settings: Settings | None = None
    """Of each text, but for its length and what the strategy sets; greedy where there are none."""

    def __post_init__(self):
        if self.budget < 1:
            raise UserError(f"a budget must be at least 1 token a question, not {self.budget}")
        if self.settings is not None and self.settings.beams > 1:
            raise UserError("strategies count every token that is written, and beams write many texts: leave out beams")


@dataclass(frozen=True)
class Answer:
    """To one question."""

    value: str | None
    """Taken out of the text; None where there is none."""
    text: str
    """What was written last."""
    tokens: int
    """Written for it, in all; never more than the budget."""
    agreement: float | None = None
    """Of several voices, the part that gave this answer."""
    texts: tuple[str, ...] = ()
    """All that was written for it, in order."""
    failed: str = ""
    """Why one of its texts failed: then there is no answer, whatever the others say."""


@dataclass(frozen=True)
class Answers:
    """To all questions, and what they cost."""

    strategy: str
    budget: int
    answers: tuple[Answer, ...]
    cut: int
    """Texts that ended because the budget did."""
    untold: int
    """Texts of which the backend did not say how long they are, or said more than they may be: taken for the most."""

    @property
    def tokens(self) -> int:
        """Written in all."""
        return sum(answer.tokens for answer in self.answers)

    @property
    def missing(self) -> int:
        """Questions that were answered by no answer."""
        return sum(answer.value is None and not answer.failed for answer in self.answers)

    @property
    def failed(self) -> int:
        """Questions of which a text failed."""
        return sum(bool(answer.failed) for answer in self.answers)

    @property
    def said(self) -> str:
        """The cost in one line."""
        untold = f", {self.untold} of unknown length" * bool(self.untold) + f", {self.failed} failed" * (
            self.failed > 0
        )
        return (
            f"{self.strategy}: {self.tokens:,} tokens for {len(self.answers)} questions, at most {self.budget} each; "
            f"{self.missing} without an answer, {self.cut} texts cut by the budget{untold}"
        )


class Desk:
    """Where texts are written for questions, each with its own rest of the budget."""

    def __init__(self, backend: Backend, questions: Sequence[Question], terms: Terms):
        from wenlu.inference.generator import Settings

        self.settings = terms.settings or Settings(temperature=0)
        self.left = [terms.budget] * len(questions)
        self._backend, self._questions, self._terms = backend, questions, terms
        self._texts: list[list[str]] = [[] for _ in questions]
        self._failed: dict[int, str] = {}
        self._cut = self._untold = 0

    def write(
        self,
        prompts: Mapping[int, Prompt],
        limit: int | Mapping[int, int],
        *,
        form: Form | None = None,
        **changes: Any,
    ) -> dict[int, str]:
        """A text for each numbered question of at most `limit` tokens (or its own limit) and no more than it has left;
        none for those with nothing left, or of which a text has failed: what is missing of several voices or steps
        would make another strategy of it. changes: of the settings."""
        form, groups = form or FREE, {}
        for number in (one for one in prompts if one not in self._failed):
            own = limit if isinstance(limit, int) else limit[number]
            if room := min(own, self.left[number]):
                constraint = form.constraint(self._questions[number])
                groups.setdefault((room, constraint), []).append(number)
        found = {}
        for (room, constraint), numbers in groups.items():
            settings = replace(self.settings, max_tokens=room, **changes)
            if constraint is not None:
                settings = replace(settings, stop=(), constraint=constraint)
            try:
                texts = self._backend.generate([prompts[number] for number in numbers], settings)
            except Failed as error:
                self._failed |= dict.fromkeys(numbers, str(error))
                continue
            for number, written in zip(numbers, texts, strict=True):
                if written.error:
                    self._failed[number] = written.error
                    continue
                # Some servers count what is no part of the text, such as thoughts.
                told = written.tokens is not None and written.tokens <= room
                self._untold += not told
                self.left[number] -= written.tokens if told else room
                self._cut += written.finish == "length"
                self._texts[number].append(written.text)
                found[number] = written.text
        return found

    def answers(self, name: str, *, vote: bool = False) -> Answers:
        """What the last text of each question answers, or most of its texts."""
        found = []
        for number, (question, texts, left) in enumerate(zip(self._questions, self._texts, self.left, strict=True)):
            if number in self._failed:
                why = self._failed[number]
                found.append(Answer(None, "", self._terms.budget - left, texts=tuple(texts), failed=why))
                continue
            values = [self._terms.extractor.extract(text, question.choices) for text in texts]
            last, value, agreement = texts[-1] if texts else "", values[-1] if values else None, None
            if vote:
                value, count = majority(values)
                agreement = count / len(texts) if texts else 0.0
                last = texts[values.index(value)] if texts else ""
            found.append(Answer(value, last, self._terms.budget - left, agreement, tuple(texts)))
        return Answers(name, self._terms.budget, tuple(found), self._cut, self._untold)


def majority(values: Sequence[str | None]) -> tuple[str | None, int]:
    """The value given most often, of equal ones the first, and how often; None where no value is one."""
    counts = Counter(value for value in values if value is not None)
    if not counts:
        return None, 0
    value = max(counts, key=lambda one: counts[one])
    return value, counts[value]
