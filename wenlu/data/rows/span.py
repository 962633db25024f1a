"""Questions whose answers are spans of a text: SQuAD's form; wrong offsets are found, long texts read in windows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError
from wenlu.data.reading.records import json_body, kind_of, records_of
from wenlu.data.rows.config import Example, RowsConfig
from wenlu.data.rows.tally import Tally
from wenlu.tokenization.form import FormEncoder
from wenlu.tokenization.tokenizer import Tokenizer

SHORTEST = 16
"""Tokens of a text that a window must have room for."""
Question = tuple[str, Any, dict[str, Any]]
"""Where it stands, its text, and itself: question, answers, id, is_impossible."""


def read(files: list[Path], config: RowsConfig, tally: Tally) -> Iterator[Example]:
    """The questions of files; those without a right answer are counted and left out."""
    for file in files:
        for where, context, question in _questions(file, tally):
            tally.records += 1
            if example := _checked(where, context, question, tally):
                yield example


def _questions(file: Path, tally: Tally) -> Iterator[Question]:
    if kind_of(file) != ".json":
        for line, record in records_of(file, tally.source):
            yield _alone(f"{file}:{line}", record, tally)
        return
    tally.source.begin(file)
    body = json_body(file, tally.source)
    if isinstance(body, list) and all(isinstance(record, dict) for record in body):
        for number, record in enumerate(body, start=1):
            yield _alone(f"{file}:{number}", record, tally)
        return
    try:
        paragraphs = [paragraph for article in body["data"] for paragraph in article["paragraphs"]]
        asked = [(number, p["context"], qa) for number, p in enumerate(paragraphs, start=1) for qa in p["qas"]]
    except (KeyError, TypeError):
        raise UserError(f"{file} is not of SQuAD's form: data, in it paragraphs, in them context and qas") from None
    for number, context, question in asked:
        tally.kinds["questions in SQuAD's form"] += 1
        name = question.get("id") if isinstance(question, dict) else None
        yield f"{file}: paragraph {number}{f', {name}' if name else ''}", context, question


def _alone(where: str, record: dict[str, Any], tally: Tally) -> Question:
    """A question with its text in a record of its own."""
    tally.kinds["questions with their texts"] += 1
    return where, record.get("context"), {**record, "answers": _as_list(record.get("answers"))}


def _as_list(answers: Any) -> Any:
    """Answers in the form of `datasets` (lists under text and answer_start) as SQuAD has them."""
    if isinstance(answers, dict) and all(isinstance(answers.get(name), list) for name in ("text", "answer_start")):
        sides = itertools.zip_longest(answers["text"], answers["answer_start"])
        return [{"text": text, "answer_start": start} for text, start in sides]
    return answers


def _checked(where: str, context: Any, question: Any, tally: Tally) -> Example | None:
    if not isinstance(question, dict) or not isinstance(question.get("question"), str):
        tally.drop(where, "a question without text")
        return None
    if not isinstance(context, str) or not context.strip() or not question["question"].strip():
        tally.drop(where, "an empty text" if question["question"].strip() else "an empty question")
        return None
    answers = question.get("answers") or []
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        tally.drop(where, "answers that are no list of objects")
        return None
    right = []
    for answer in answers:
        text, start = answer.get("text"), answer.get("answer_start")
        if not isinstance(text, str) or not text.strip() or not isinstance(start, int):
            tally.noted["answers without a text or a place"] += 1
        elif start < 0 or context[start : start + len(text)] != text:
            tally.noted["answers whose offset is wrong"] += 1
        else:
            right.append([text, start])
    if answers and not right:
        tally.drop(where, "no answer stands where its offset says")
        return None
    if not answers and question.get("is_impossible") is not True:
        tally.drop(where, "no answer, and is_impossible is not said")
        return None
    texts = [answer["text"] for answer in answers if isinstance(answer.get("text"), str)]
    return Example(where, [context, question["question"], right, texts], context)


class Windows:
    """Questions as rows: [CLS] question [SEP] a window of the text [SEP]."""

    def __init__(self, tokenizer: Tokenizer, context: int, stride: int):
        self._tokenizer, self._encoder = tokenizer, FormEncoder(tokenizer)
        self._context, self._stride = context, stride
        self._known: tuple[str, list[int], list[tuple[int, int]]] = ("", [], [])

    def encoded(self, example: Example, number: int, tally: Tally) -> list[dict[str, Any]]:
        """The rows of a question: `ids`, `types`, `starts`, `ends` (one each; 0, [CLS], where the answer is not in the
        window), `within`, `offsets` (first and last character of each token, -1 outside the text), `example`."""
        context, question, answers, _ = example.content
        ids, spans = self._read(context)
        asked = self._tokenizer.encode(question)
        room = self._context - len(asked) - 3
        if room < min(SHORTEST, len(ids)):
            tally.drop(example.where, "a question that leaves no room for its text")
            return []
        first, last = _tokens_of(spans, *answers[0], tally) if answers else (-1, -1)
        if answers and first < 0:
            tally.drop(example.where, "an answer that the tokenizer reads as nothing")
            return []
        head = [self._tokenizer.cls_id, *asked, self._tokenizer.sep_id]
        rows, begin = [], 0
        while True:
            part = slice(begin, begin + room)
            whole = answers and begin <= first and last < begin + room
            rows.append(
                {
                    "ids": [*head, *ids[part], self._tokenizer.sep_id],
                    "types": [0] * len(head) + [1] * (len(ids[part]) + 1),
                    "starts": first - begin + len(head) if whole else 0,
                    "ends": last - begin + len(head) if whole else 0,
                    "within": [1, *[0] * (len(head) - 1), *[1] * len(ids[part]), 0],
                    "offsets": [-1] * 2 * len(head) + [place for span in spans[part] for place in span] + [-1, -1],
                    "example": number,
                }
            )
            if begin + room >= len(ids):
                break
            begin += room - min(self._stride, room // 2)
        tally.noted["windows beyond the first of a long text"] += len(rows) - 1
        tally.noted = +tally.noted
        return rows

    def _read(self, context: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and characters of a text; questions on one text follow each other."""
        if self._known[0] != context:
            self._known = (context, *self._encoder.encode(context, [(0, len(context))]))
        return self._known[1:]


def _tokens_of(spans: list[tuple[int, int]], text: str, start: int, tally: Tally) -> tuple[int, int]:
    """First and last token of an answer; an answer that begins or ends within a token has the whole token."""
    end = start + len(text)
    inside = [number for number, (a, b) in enumerate(spans) if a < end and start < b]
    if not inside:
        return -1, -1
    exact = spans[inside[0]][0] >= start - 1 and spans[inside[-1]][1] == end
    tally.noted["answers that begin or end within a token"] += not exact
    return inside[0], inside[-1]
