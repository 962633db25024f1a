"""Tasks whose answers are written: taken out of the text, and compared with the right ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from wenlu.base.errors import UserError
from wenlu.evaluation.kinds import Asks, Row, means
from wenlu.inference.generator import Settings
from wenlu.inference.stream import Result
from wenlu.metrics.intervals import Estimate
from wenlu.metrics.scores import cmrc_score, squad_score
from wenlu.metrics.text import bleu, chrf, normalised
from wenlu.prompting.answers import Extractor
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Template

Measure = Literal["answer", "verbatim", "span", "f1", "contains", "set", "translation"]

_WORD = re.compile(r"\w+")
_LETTER = r"[^\W\u3400-\u9fff]"
"""Of words that spaces part: Chinese has no borders of words."""


@dataclass(frozen=True)
class Writing:
    """What a greedy choice of every token writes after a prompt, and how it is judged."""

    measure: Measure = "answer"
    """answer: what the extractor finds is the right one. verbatim: what follows `marker`, to the letter. span: exact
    match and F1 as SQuAD's or CMRC's script has them. f1: SQuAD's F1 with the best answer. contains: a right answer
    occurs in the text, in words of its own; Chinese anywhere. set: the same words. translation: BLEU and chrF,
    with all right answers as references."""
    extractor: Extractor = field(default_factory=Extractor)
    strict: Extractor | None = None
    """Of answer: a second, narrower one, whose part of right answers is given too."""
    marker: str = ""
    """Of verbatim: the answer follows its last occurrence, up to a line's end and a full stop; else it comes first."""
    stop: tuple[str, ...] = ("\n",)
    """What ends the text; in a conversation its end token alone does."""
    max_tokens: int = 64
    chinese: bool = False
    """Of span: as CMRC's script compares."""

    name = "writing"
    lower, judges_only, whole_texts = False, False, False

    def __post_init__(self):
        self.settings(chat=False)

    @property
    def metric(self) -> str:
        """The main figure's name."""
        names = {
            "answer": "exact_match",
            "verbatim": "exact_match",
            "span": "f1",
            "translation": "bleu",
            "set": "exact_set",
        }
        return names.get(self.measure, self.measure)

    def settings(self, *, chat: bool) -> Settings:
        """How the text is written."""
        return Settings(max_tokens=self.max_tokens, temperature=0.0, stop=() if chat else self.stop)

    def check(self, example: Example) -> None:
        """Raises UserError for an example without a right answer; SQuAD 2's may have none, then nothing is right."""
        if self.measure == "span" and example.fields.get("is_impossible") is True:
            return
        if not example.right.strip():
            raise UserError(f"example {example.id}: the gold answer is empty")

    def notes(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def asks(self, template: Template, example: Example, shots: Sequence[Example]) -> Asks:
        """The prompt alone."""
        return ((template.render(example, shots), ()),)

    def outcome(self, example: Example, result: Result) -> Row:
        """The text, what was found in it, and its scores."""
        row: Row = {"text": result.text, "finish": result.finish, "tokens": len(result.ids)}
        row["beyond"] = result.beyond_context
        text = " ".join(result.text.split())
        if self.measure == "answer":
            row["found"] = self.extractor.extract(result.text, example.choices)
            scores = {"exact_match": float(self.extractor.is_right(row["found"], example))}
            if self.strict is not None:
                found = self.strict.extract(result.text, example.choices)
                scores["exact_match_strict"] = float(self.strict.is_right(found, example))
        elif self.measure == "verbatim":
            said = result.text.rpartition(self.marker)[2] if self.marker else result.text
            row["found"] = said.strip().split("\n")[0].strip().removesuffix(".").rstrip() or None
            scores = {"exact_match": float(row["found"] in {answer.strip() for answer in example.answers})}
        elif self.measure in ("span", "f1"):
            exact, f1 = (cmrc_score if self.chinese else squad_score)(text, example.answers)
            scores = {"exact_match": exact, "f1": f1} if self.measure == "span" else {"f1": f1}
        elif self.measure == "translation":
            row["references"] = list(example.answers)
            scores = {"sentence_chrf": _sentence_chrf(text, example.answers)}
        else:
            scores = {self.metric: self._words(text, example.answers)}
        return row | {"scores": scores}

    def _words(self, text: str, answers: Sequence[str]) -> float:
        plain, right = normalised(text), [normalised(answer) for answer in answers]
        if self.measure == "contains":
            return float(any(answer and re.search(_apart(answer), plain) for answer in right))
        return float(any(set(_WORD.findall(plain)) == set(_WORD.findall(answer)) for answer in right))

    def figures(self, rows: Sequence[Row], groups: Sequence[str]) -> dict[str, Estimate]:
        """Means of the scores; of translations BLEU and chrF of all texts together."""
        if self.measure != "translation":
            return means(rows, groups)
        texts = [" ".join(row["text"].split()) for row in rows]
        references = [row["references"] for row in rows]
        return {"bleu": bleu(texts, references, groups), "chrf": chrf(texts, references, groups)}

    def said(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """How many texts held no answer, and how many were ended before they ended by themselves."""
        missing = sum("found" in row and row["found"] is None for row in rows)
        lines = [f"in {missing:,} of {len(rows):,} texts no answer was found; they count as wrong"] if missing else []
        for finish, why in (("length", f"cut at {self.max_tokens} tokens"), ("context", "ended: no positions left")):
            if number := sum(row["finish"] == finish for row in rows):
                lines.append(f"{number:,} of {len(rows):,} texts were {why}")
        if number := sum(row["beyond"] for row in rows):
            lines.append(f"{number:,} of {len(rows):,} texts went on beyond the context that the model was trained on")
        return tuple(lines)


def _apart(answer: str) -> str:
    """A pattern of it where it is no part of a longer word."""
    before, after = (re.match(_LETTER, letter) for letter in (answer[0], answer[-1]))
    return rf"(?<!{_LETTER})" * bool(before) + re.escape(answer) + rf"(?!{_LETTER})" * bool(after)


def _sentence_chrf(text: str, references: Sequence[str]) -> float:
    from sacrebleu.metrics import CHRF

    return float(CHRF().sentence_score(text, list(references)).score)
