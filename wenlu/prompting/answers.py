"""Answers taken out of written texts; what cannot be found is counted, never guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from wenlu.base.errors import UserError
from wenlu.metrics.text import normalised
from wenlu.prompting.examples import Example
from wenlu.prompting.numbers import FULL_WIDTH, leading, numbers, written

_MARKER = re.compile(r"####|\banswer\s*(?:is\b|[:=])\s*:?|答案?\s*(?:应?[是为]|:)\s*:?|\\boxed\{", re.IGNORECASE)
"""What announces an answer, in a text whose full-width forms are ASCII."""


@dataclass(frozen=True)
class Extractor:
    """Where the answer lies in a text. Answers but numbers and letters are compared as `metrics.text.normalised` has
    them. Raises UserError for settings that do not go together."""

    kind: Literal["text", "number", "letter", "choice", "regex", "json", "last_line"] = "text"
    """text: all of it. number: what a marker announces ("#### 12", "the answer is", 答案是, \\boxed), else the last
    number. letter: of a choice, announced, at the beginning, alone on the last line or the only one in brackets.
    choice: the one choice that the text is or names. regex, json: see `pattern` and `field`. last_line: the last that
    is not empty."""
    pattern: str = ""
    """Of regex: Python's syntax; its first group is the answer, or the whole where it has none."""
    take: Literal["first", "last"] = "last"
    """Of regex: which of several matches."""
    field: str = ""
    """Of json: the name of a field in the first JSON object, with dots for fields of fields."""
    marked: bool = False
    """Of number and letter: only what a marker announces."""
    letters: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    """Of letter: those of the template, or its first."""

    def __post_init__(self):
        if (self.kind == "regex") != bool(self.pattern) or (self.kind == "json") != bool(self.field):
            raise UserError("a pattern is given for regex, a field for json, and neither for other kinds of answers")
        if self.marked and self.kind not in ("number", "letter"):
            raise UserError(f"only a number or a letter can be marked, not a {self.kind}")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UserError(f"the pattern {self.pattern!r} is no regular expression: {error}") from None

    def extract(self, text: str, choices: Sequence[str] = ()) -> str | None:
        """The answer in its normal form (of letters: as in `letters`; of choices: verbatim); None where there is none.

        choices: of the example, for letter and choice.
        """
        match self.kind:
            case "number":
                return self._number(text)
            case "letter":
                return self._letter(
                    text.translate(FULL_WIDTH), self.letters[: len(choices)] if choices else self.letters
                )
            case "choice":
                return named_choice(text, choices)
            case "regex":
                return self._matched(text)
            case "json":
                return _json_field(text, self.field.split("."))
            case "last_line":
                lines = [line for line in text.splitlines() if normalised(line)]
                return normalised(lines[-1]) if lines else None
        return normalised(text) or None

    def is_right(self, found: str | None, example: Example) -> bool:
        """Whether an extracted answer is the example's right one; nothing found is wrong.

        example: with its choices as they are answered (`Template.as_answered`). Raises UserError where no right answer
        is known, or no letter for it.
        """
        if self.kind == "letter":
            if example.gold is None:
                raise UserError(f"example {example.id} has no gold choice, so no letter can be right")
            if example.gold >= len(self.letters):
                raise UserError(
                    f"example {example.id} has {len(example.choices)} choices, but the extractor only "
                    f"{len(self.letters)} letters: give more letters"
                )
            return found == self.letters[example.gold]
        known = (example.right,) if example.gold is not None else (example.right, *example.answers)
        if self.kind == "number":
            return found is not None and found in {Extractor("number").extract(one) for one in known}
        return found is not None and normalised(found) in {normalised(one) for one in known}

    def _number(self, text: str) -> str | None:
        text = text.translate(FULL_WIDTH)
        announced = [leading(text[match.end() :]) for match in _MARKER.finditer(text)]
        announced = [value for value in announced if value is not None]
        if announced:
            return written(announced[-1])
        if self.marked:
            return None
        if re.fullmatch(r"\W*[^\W\d]{1,8}\W*", text) and (whole := leading(text)) is not None:
            return written(whole)
        found = numbers(text)
        return written(found[-1]) if found else None

    def _letter(self, text: str, letters: str) -> str | None:
        one = f"[{re.escape(letters)}]"
        alone = rf"[\s*(\[\"'“「【]*({one})(?![A-Za-z0-9])"
        announced = [re.match(alone, text[match.end() :]) for match in _MARKER.finditer(text)]
        announced = [match for match in announced if match]
        if announced:
            return announced[-1][1]
        if self.marked:
            return None
        lines = [line for line in text.splitlines() if line.strip()] or [""]
        for line in (lines[0], lines[-1]):
            if match := re.match(rf"\W*({one})(?:[.):,\]】」。、,]|\W*$)", line):
                return match[1]
        bracketed = re.findall(rf"[(\[【]({one})[)\]】]", text)
        return bracketed[-1] if len(set(bracketed)) == 1 else None

    def _matched(self, text: str) -> str | None:
        found = list(re.finditer(self.pattern, text))
        if not found:
            return None
        chosen = found[0 if self.take == "first" else -1]
        return normalised(chosen[1 if chosen.re.groups else 0] or "") or None


WHOLE_TEXT = Extractor()


@dataclass(frozen=True)
class Extracted:
    """The answers of several texts."""

    values: tuple[str | None, ...]

    @property
    def missing(self) -> int:
        """In how many no answer was found."""
        return sum(value is None for value in self.values)


def extract_all(extractor: Extractor, texts: Sequence[str], examples: Sequence[Example]) -> Extracted:
    """The answer of each text to the example beside it."""
    pairs = zip(texts, examples, strict=True)
    return Extracted(tuple(extractor.extract(text, example.choices) for text, example in pairs))


def named_choice(text: str, choices: Sequence[str]) -> str | None:
    """The one choice that a text is, or else the one that it names as a word of its own; None for none or several.

    A choice within another ("valid" in "not valid") is named where it stands apart from it; a number or a name with a
    sign (-3, 3%, C++) names none without.
    """
    plain = normalised(text)
    forms = {choice: normalised(choice) for choice in choices}
    same = [choice for choice, form in forms.items() if form == plain]
    if same:
        return same[0] if len(same) == 1 else None
    named = set()
    for choice, form in sorted(forms.items(), key=lambda pair: -len(pair[1])):
        word = rf"(?<![a-z0-9]){'(?<![-+$€£¥])' * form[:1].isdigit()}{re.escape(form)}(?![a-z0-9%‰#]|\+\+)"
        if form and re.search(word, plain):
            named.add(choice)
            plain = re.sub(word, "\0", plain)
    return named.pop() if len(named) == 1 else None


def _json_field(text: str, path: Sequence[str]) -> str | None:
    decoder = json.JSONDecoder()
    for start in (match.start() for match in re.finditer(r"\{", text)):
        try:
            found: Any = decoder.raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            continue
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, str | int | float):
            return normalised(found if isinstance(found, str) else json.dumps(found)) or None
        return None
    return None
