"""Which choice a model prefers, from log-probabilities: plain sums, and what corrects them for length and bias.

Each score is a frozen object that says which queries it needs of an example, and a pure function of what comes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from wenlu.base.errors import UserError, did_you_mean
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Prompt, Template, neutral

if TYPE_CHECKING:
    from wenlu.inference.score import Score

CONTENT_FREE = ("N/A", "[MASK]", "")
"""What Zhao et al. 2021 put in place of an input."""


@dataclass(frozen=True)
class Ask:
    """A prompt, and texts that might follow it, of which log-probabilities are wanted."""

    prompt: Prompt
    continuations: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """What came back for one example: the scores of every continuation of every ask, in order."""

    continuations: tuple[str, ...]
    """The choices as they are written after the prompt."""
    scores: tuple[tuple[Score, ...], ...]


@dataclass(frozen=True)
class Prior:
    """How likely each continuation is whatever is asked, in nats: what is taken off. Learned once, then fixed."""

    continuations: tuple[str, ...]
    values: tuple[float, ...]


class ChoiceScore(Protocol):
    """One way to say how good each choice is."""

    name: str

    def asks(self, template: Template, example: Example, demonstrations: Sequence[Example] = ()) -> tuple[Ask, ...]:
        """What must be scored for an example."""

    def values(self, readings: Sequence[Reading], prior: Prior | None = None) -> list[tuple[float, ...]]:
        """A value for each choice of each example, the larger the better."""


class _FromPrompt:
    """Scores of the choices after the prompt alone."""

    def asks(self, template: Template, example: Example, demonstrations: Sequence[Example] = ()) -> tuple[Ask, ...]:
        """The prompt with each choice after it."""
        return (Ask(template.render(example, demonstrations), template.continuations(example)),)


@dataclass(frozen=True)
class Sum(_FromPrompt):
    """The log-probability of the whole choice."""

    name = "sum"

    def values(self, readings: Sequence[Reading], prior: Prior | None = None) -> list[tuple[float, ...]]:
        """Σ log p, nats."""
        _without(self, prior)
        return [_sums(reading.scores[0]) for reading in readings]


@dataclass(frozen=True)
class PerToken(_FromPrompt):
    """The mean over the choice's tokens (Brown et al. 2020), so that long choices lose nothing by their length."""

    name = "per_token"

    def values(self, readings: Sequence[Reading], prior: Prior | None = None) -> list[tuple[float, ...]]:
        """Σ log p / tokens, nats."""
        _without(self, prior)
        return [tuple(s.log_probability / max(1, s.tokens) for s in reading.scores[0]) for reading in readings]


@dataclass(frozen=True)
class PerByte(_FromPrompt):
    """The sum over the choice's bytes in UTF-8, whatever the tokenizer (of ASCII, lm-evaluation-harness's acc_norm)."""

    name = "per_byte"

    def values(self, readings: Sequence[Reading], prior: Prior | None = None) -> list[tuple[float, ...]]:
        """Σ log p / bytes, nats. The space before a choice is none of its bytes."""
        _without(self, prior)
        return [
            tuple(
                score.log_probability / max(1, len(text.lstrip().encode()))
                for text, score in zip(reading.continuations, reading.scores[0], strict=True)
            )
            for reading in readings
        ]


@dataclass(frozen=True)
class PMI(_FromPrompt):
    """How much likelier the prompt makes a choice than a premise of the same domain does.

    Source: Holtzman et al. 2021, arXiv 2104.08315: log p(choice | prompt) - log p(choice | premise). Raises UserError
    without a premise.
    """

    premise: str = "Answer:"
    """Such as the last words of the prompt, which say that an answer comes but not to what."""
    name = "pmi"

    def __post_init__(self):
        if not self.premise:
            raise UserError("PMI needs a premise of the domain, such as 'Answer:' or '答：'")

    def asks(self, template: Template, example: Example, demonstrations: Sequence[Example] = ()) -> tuple[Ask, ...]:
        """The choices after the prompt, and after the premise (in a conversation, as all that the user says)."""
        premise = ({"role": "user", "content": self.premise},) if template.chat else self.premise
        return (*super().asks(template, example, demonstrations), Ask(premise, template.continuations(example)))

    def values(self, readings: Sequence[Reading], prior: Prior | None = None) -> list[tuple[float, ...]]:
        """log p(choice | prompt) - log p(choice | premise), nats."""
        _without(self, prior)
        return [_less(_sums(reading.scores[0]), _sums(reading.scores[1])) for reading in readings]


@dataclass(frozen=True)
class Contextual(_FromPrompt):
    """Probabilities of the choices, divided by those that they have where nothing is asked.

    Source: Zhao et al. 2021, arXiv 2102.09690, with the diagonal matrix: p(choice | content-free) is the mean over the
    inputs, each normalised over the choices. Raises UserError without inputs.
    """

    inputs: tuple[str, ...] = CONTENT_FREE
    """In place of every text among the example's fields."""
    name = "contextual"

    def __post_init__(self):
        if not self.inputs:
            raise UserError(f"contextual calibration needs content-free inputs, such as {list(CONTENT_FREE)}")

    def asks(self, template: Template, example: Example, demonstrations: Sequence[Example] = ()) -> tuple[Ask, ...]:
        """The choices after the prompt, and after the prompts of content-free inputs."""
        blank = [
            Ask(template.render(neutral(example, content), demonstrations), template.continuations(example))
            for content in self.inputs
        ]
        return (*super().asks(template, example, demonstrations), *blank)

    def values(self, readings: Sequence[Reading], prior: Prior | None = None) -> list[tuple[float, ...]]:
        """log (p(choice | prompt) / p(choice | content-free)), up to a constant of the example."""
        _without(self, prior)
        return [
            _less(_normalised(_sums(reading.scores[0])), _mean_probability(reading.scores[1:])) for reading in readings
        ]


@dataclass(frozen=True)
class Batch(_FromPrompt):
    """Log-probabilities, less their mean over many examples: whatever a choice has everywhere is bias.

    Source: Zhou et al. 2023, arXiv 2309.17249, in log-probabilities normalised over the choices. The examples' answers
    are not used. It stands on the choices being the same everywhere: UserError where they are not.
    """

    strength: float = 1.0
    """How much of the mean is taken off; 0: none (γ of the paper)."""
    name = "batch"

    def __post_init__(self):
        if not (0 <= self.strength < math.inf):
            raise UserError(f"strength must be 0 (nothing is taken off) or more, not {self.strength}")

    def prior(self, readings: Sequence[Reading]) -> Prior:
        """The mean over examples, to be kept for others: then an example's values do not depend on its batch."""
        if not readings:
            raise UserError("batch calibration needs examples to take its mean over: give it some")
        first = readings[0].continuations
        for reading in readings:
            _same_choices(first, reading)
        rows = [_normalised(_sums(reading.scores[0])) for reading in readings]
        return Prior(first, tuple(math.fsum(column) / len(rows) for column in zip(*rows, strict=True)))

    def values(self, readings: Sequence[Reading], prior: Prior | None = None) -> list[tuple[float, ...]]:
        """log p(choice | prompt) - strength · mean. prior: a mean that was kept, else that of these examples."""
        prior = prior or self.prior(readings)
        taken = tuple(self.strength * value for value in prior.values)
        for reading in readings:
            _same_choices(prior.continuations, reading)
        return [_less(_normalised(_sums(reading.scores[0])), taken) for reading in readings]


@dataclass(frozen=True)
class Channel:
    """How likely each choice makes the question: log p(question | choice), by the template's `channel`.

    Source: Min et al. 2022, arXiv 2108.04106. For texts only.
    """

    name = "channel"

    def asks(self, template: Template, example: Example, demonstrations: Sequence[Example] = ()) -> tuple[Ask, ...]:
        """The question after each of the choices."""
        template.continuations(example)
        both = [template.channel(example, demonstrations, choice) for choice in range(len(example.choices))]
        return tuple(Ask(prompt, (question,)) for prompt, question in both)

    def values(self, readings: Sequence[Reading], prior: Prior | None = None) -> list[tuple[float, ...]]:
        """Σ log p of the question, nats."""
        _without(self, prior)
        return [tuple(scores[0].log_probability for scores in reading.scores) for reading in readings]


SCORES: dict[str, Callable[..., ChoiceScore]] = {
    kind.name: kind for kind in (Sum, PerToken, PerByte, PMI, Contextual, Batch, Channel)
}
"""Name → score."""


@dataclass(frozen=True)
class Scoring:
    """A score as it is written down: its name, and what it needs. Raises UserError for what does not go together."""

    kind: str = "sum"
    premise: str | None = None
    inputs: tuple[str, ...] | None = None
    strength: float | None = None

    def __post_init__(self):
        _ = self.score

    @property
    def score(self) -> ChoiceScore:
        """The score itself."""
        if self.kind not in SCORES:
            near = did_you_mean(self.kind, SCORES)
            raise UserError(f"a score is one of {', '.join(SCORES)}, not {self.kind!r}.{near}")
        own = {"pmi": "premise", "contextual": "inputs", "batch": "strength"}.get(self.kind)
        given = {name: getattr(self, name) for name in ("premise", "inputs", "strength")}
        given = {name: value for name, value in given.items() if value is not None}
        if set(given) - {own}:
            raise UserError(f"the score {self.kind} has no {', '.join(sorted(set(given) - {own}))}: leave it out")
        return SCORES[self.kind](**given)

    @classmethod
    def of(cls, score: ChoiceScore) -> Scoring:
        """What `score` is written down as."""
        return cls(score.name, **{name: getattr(score, name) for name in score.__dataclass_fields__})


def reading(template: Template, example: Example, scores: Sequence[Sequence[Score]]) -> Reading:
    """What came back for an example's asks, put together."""
    return Reading(template.continuations(example), tuple(map(tuple, scores)))


def chosen(values: Sequence[Sequence[float]]) -> list[int]:
    """The number of the best choice of each example; of equal ones the first."""
    return [max(range(len(row)), key=lambda choice: (row[choice], -choice)) for row in values]


def _without(score: ChoiceScore, prior: Prior | None) -> None:
    if prior is not None:
        raise UserError(f"the score {score.name} takes no prior: only batch calibration keeps one")


def _sums(scores: Sequence[Score]) -> tuple[float, ...]:
    return tuple(score.log_probability for score in scores)


def _less(values: Sequence[float], others: Sequence[float]) -> tuple[float, ...]:
    return tuple(value - other for value, other in zip(values, others, strict=True))


def _normalised(logs: Sequence[float]) -> tuple[float, ...]:
    """log softmax."""
    top = max(logs)
    whole = top + math.log(math.fsum(math.exp(value - top) for value in logs))
    return tuple(value - whole for value in logs)


def _mean_probability(several: Sequence[Sequence[Score]]) -> tuple[float, ...]:
    """log of the mean of normalised probabilities."""
    rows = [_normalised(_sums(scores)) for scores in several]
    tops = [max(column) for column in zip(*rows, strict=True)]
    return tuple(
        top + math.log(math.fsum(math.exp(value - top) for value in column) / len(rows))
        for top, column in zip(tops, zip(*rows, strict=True), strict=True)
    )


def _same_choices(continuations: tuple[str, ...], reading: Reading) -> None:
    if reading.continuations != continuations:
        raise UserError(
            f"batch calibration needs the same choices everywhere, not {list(continuations)} here and "
            f"{list(reading.continuations)} there: answer by letters, or take another score"
        )
