"""Kinds of tasks that are scored: which of several texts is likelier, or how likely a text is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from wenlu.base.errors import UserError
from wenlu.evaluation.perplexity import exponential
from wenlu.inference.score import Score
from wenlu.metrics.intervals import Estimate, Interval, by_group, draws, group_numbers, mean, ratio
from wenlu.metrics.scores import macro_f1
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Prompt, Template

Row = dict[str, Any]
"""What came of one example, as JSON: `scores` by name, and what they were made of."""
Asks = tuple[tuple[Prompt, tuple[str, ...]], ...]
"""Prompts, each with texts that might follow it."""

RESAMPLES = 2000


class Kind(Protocol):
    """How examples are asked and judged."""

    name: str
    metric: str
    """The main figure's name."""
    lower: bool
    """Whether less of it is better."""
    judges_only: bool
    """Whether it only compares texts, as a model may that gives no probability of any."""
    whole_texts: bool
    """Whether examples are texts that may be longer than a model reads at once."""

    def check(self, example: Example) -> None:
        """Raises UserError for an example that cannot be judged."""

    def notes(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """What one should know of these examples."""

    def asks(self, template: Template | None, example: Example, shots: Sequence[Example]) -> Asks:
        """What a model is asked."""

    def figures(self, rows: Sequence[Row], groups: Sequence[str]) -> dict[str, Estimate]:
        """The figures of many rows; groups: of each row's example."""


def means(rows: Sequence[Row], groups: Sequence[str]) -> dict[str, Estimate]:
    """The mean of each score with its interval, whole groups kept together."""
    return {name: mean([row["scores"][name] for row in rows], groups) for name in rows[0]["scores"]}


def probabilities(row: Row) -> np.ndarray:
    """Of the choices, [choices]: the model's own, as if there were no other texts."""
    values = np.asarray(row["log_probabilities"], np.float64)
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def _of_choices(values: Sequence[float], gold: int, lengths: dict[str, Sequence[int]]) -> Row:
    """Whether the likeliest is right: by its whole log-probability, and divided by each of its lengths.

    Equal ones count for the first, as in lm-evaluation-harness (numpy's argmax).
    """
    sums = np.asarray(values, np.float64)
    scores = {"acc": float(int(sums.argmax()) == gold)}
    for name, of_choice in lengths.items():
        scores[name] = float(int((sums / np.maximum(1, of_choice)).argmax()) == gold)
    return {"scores": scores, "gold": gold, "found": int(sums.argmax()), "log_probabilities": sums.tolist()}


def _need_gold(example: Example) -> None:
    if example.gold is None:
        raise UserError(f"example {example.id} has no gold answer: give the number of the right choice")
    if len(example.choices) < 2:
        raise UserError(f"example {example.id} has {len(example.choices)} choices: give at least two")
    empty = next((number for number, choice in enumerate(example.choices) if not choice.strip()), None)
    if empty is not None:
        raise UserError(f"example {example.id}: choice {empty} is empty")


@dataclass(frozen=True)
class Choice:
    """Whole choices after a question; the likeliest is the model's answer."""

    classes: tuple[str, ...] = ()
    """Where all examples have the same choices, they are classes, and macro F1 is given too."""

    name = "choice"
    metric, lower, judges_only, whole_texts = "acc", False, True, False

    def check(self, example: Example) -> None:
        """Raises UserError for an example without gold or choices."""
        _need_gold(example)
        if self.classes and example.choices != self.classes:
            raise UserError(f"example {example.id} has other choices than the classes {', '.join(self.classes)}")

    def notes(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Whether only one choice is ever right."""
        golds = {example.gold for example in examples}
        if len(golds) > 1 or len(examples) < 2:
            return ()
        gold = golds.pop()
        named = f"{self.classes[gold]!r}" if self.classes else f"choice {gold}"
        return (
            f"only {named} is ever right in these {len(examples)} examples: whoever always says so is always right",
        )

    def asks(self, template: Template, example: Example, shots: Sequence[Example]) -> Asks:
        """One prompt, and all choices after it."""
        return ((template.render(example, shots), template.continuations(example)),)

    def outcome(self, template: Template, example: Example, scores: Sequence[Sequence[Score]]) -> Row:
        """acc, acc_norm (by characters of the choice, without the space before it) and acc_bytes, as
        lm-evaluation-harness defines them."""
        texts = template.choice_texts(example)
        lengths = {"acc_norm": [len(text) for text in texts], "acc_bytes": [len(text.encode()) for text in texts]}
        return _of_choices([score.log_probability for score in scores[0]], example.gold, lengths)

    def figures(self, rows: Sequence[Row], groups: Sequence[str]) -> dict[str, Estimate]:
        """Means of the scores, and macro F1 of classes."""
        found = means(rows, groups)
        if self.classes:
            found["macro_f1"] = _macro_f1(rows, groups, len(self.classes))
        return found


def _macro_f1(rows: Sequence[Row], groups: Sequence[str], classes: int) -> Estimate:
    """Macro F1, and its interval by the bootstrap over whole groups; None where resamples show no spread."""
    numbers = group_numbers(groups, len(rows))
    cells = np.zeros((len(rows), classes * classes))
    cells[np.arange(len(rows)), [row["gold"] * classes + row["found"] for row in rows]] = 1
    sums = by_group(cells, numbers)
    found = [macro_f1((drawn @ sums).reshape(-1, classes, classes)) for drawn in draws(len(sums), RESAMPLES)]
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    value = float(macro_f1(cells.sum(0).reshape(classes, classes)))
    return Estimate(value, Interval(float(low), float(high)) if low < high else None)


@dataclass(frozen=True)
class Contexts:
    """One ending after several beginnings: the beginning after which it is likeliest is the model's answer.

    As WinoGrande is scored by lm-evaluation-harness. The choices are the beginnings, `continuation` is a field.
    """

    delimiter: str = " "
    separator: str = "\n\n"

    name = "contexts"
    metric, lower, judges_only, whole_texts = "acc", False, True, False

    def check(self, example: Example) -> None:
        """Raises UserError for an example without gold, beginnings or an ending."""
        _need_gold(example)
        if not isinstance(example.fields.get("continuation"), str) or not example.fields["continuation"].strip():
            raise UserError(f"example {example.id} has no continuation: what follows its contexts")

    def notes(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Whether only one choice is ever right."""
        return Choice().notes(examples)

    def asks(self, template: Template | None, example: Example, shots: Sequence[Example]) -> Asks:
        """Each beginning, and the ending after it."""
        shown = [one.right + self.delimiter + one.fields["continuation"] + self.separator for one in shots]
        after = self.delimiter + example.fields["continuation"]
        return tuple(("".join(shown) + choice, (after,)) for choice in example.choices)

    def outcome(self, template: Template | None, example: Example, scores: Sequence[Sequence[Score]]) -> Row:
        """acc; the ending is the same, so there is no length to divide by."""
        return _of_choices([score.log_probability for (score,) in scores], example.gold, {})

    def figures(self, rows: Sequence[Row], groups: Sequence[str]) -> dict[str, Estimate]:
        """Means of the scores."""
        return means(rows, groups)


@dataclass(frozen=True)
class Pairs:
    """Two whole sentences, the first of them right: does the model find it likelier? (Warstadt et al. 2020, BLiMP.)"""

    delimiter: str = " "
    """Before each sentence, after the token that begins a document; lm-evaluation-harness has a space."""

    name = "pairs"
    metric, lower, judges_only, whole_texts = "acc", False, True, False

    def check(self, example: Example) -> None:
        """Raises UserError for an example without two sentences."""
        _need_gold(example)

    def notes(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """How many pairs are none; which side is right is the same in all by definition."""
        same = sum(len(set(example.choices)) == 1 for example in examples)
        return (f"{same:,} of {len(examples):,} pairs are two times the same sentence; they count as right",) * bool(
            same
        )

    def asks(self, template: Template | None, example: Example, shots: Sequence[Example]) -> Asks:
        """Both sentences after nothing."""
        return (("", tuple(self.delimiter + choice for choice in example.choices)),)

    def outcome(self, template: Template | None, example: Example, scores: Sequence[Sequence[Score]]) -> Row:
        """acc by whole log-probabilities."""
        return _of_choices([score.log_probability for score in scores[0]], example.gold, {})

    def figures(self, rows: Sequence[Row], groups: Sequence[str]) -> dict[str, Estimate]:
        """Means of the scores."""
        return means(rows, groups)


@dataclass(frozen=True)
class Cloze:
    """A text's end, all of which a greedy choice must hit (LAMBADA: Paperno et al. 2016), and its perplexity."""

    name = "cloze"
    metric, lower, judges_only, whole_texts = "acc", False, False, False

    def check(self, example: Example) -> None:
        """Raises UserError for an example without an end."""
        if not example.right.strip():
            raise UserError(f"example {example.id}: the gold answer is empty")

    def notes(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def asks(self, template: Template, example: Example, shots: Sequence[Example]) -> Asks:
        """The text, and its end."""
        return ((template.render(example, shots), (template.delimiter + example.right,)),)

    def outcome(self, template: Template, example: Example, scores: Sequence[Sequence[Score]]) -> Row:
        """acc and the nats of the whole end."""
        ((score,),) = scores
        return {"scores": {"acc": float(score.greedy), "nats": -score.log_probability}, "tokens": score.tokens}

    def figures(self, rows: Sequence[Row], groups: Sequence[str]) -> dict[str, Estimate]:
        """acc, and perplexity: exp of the mean nats of an end (of all its tokens), as lm-evaluation-harness has it."""
        found = means(rows, groups)
        return {"acc": found["acc"], "perplexity": exponential(found["nats"])}


@dataclass(frozen=True)
class Texts:
    """Whole texts, every token of which is predicted: perplexity and bits per byte (`evaluation.perplexity`)."""

    name = "texts"
    metric, lower, judges_only, whole_texts = "bits_per_byte", True, False, True

    def check(self, example: Example) -> None:
        """Raises UserError for an empty text."""
        if not isinstance(example.fields.get("text"), str) or not example.fields["text"]:
            raise UserError(f"example {example.id} has no text")

    def notes(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def asks(self, template: Template | None, example: Example, shots: Sequence[Example]) -> Asks:
        """The text after nothing."""
        return (("", (example.fields["text"],)),)

    def figures(self, rows: Sequence[Row], groups: Sequence[str]) -> dict[str, Estimate]:
        """Nats per token, perplexity, and bits per byte where no text lost any; intervals by text."""
        sums = {}
        for row, group in zip(rows, groups, strict=True):
            key = group or ("alone", row["id"])
            sums[key] = sums.get(key, 0) + np.array([row["nats"], row["tokens"], row["bytes"]], np.float64)
        nats, tokens, size = np.array(list(sums.values())).T
        per_token = ratio(nats, tokens)
        found = {"nats_per_token": per_token, "perplexity": exponential(per_token)}
        if all("bits_per_byte" in row["scores"] for row in rows):
            found["bits_per_byte"] = ratio(nats / np.log(2), size)
        return found
