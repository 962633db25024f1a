"""Labels, tags and answers for new texts, by a model that was tuned for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.base.log import counted
from wenlu.data.reading.counts import SourceCounts
from wenlu.data.reading.records import kind_of, records_of, text_lines
from wenlu.data.rows import classify, collate, span, tag
from wenlu.data.rows.config import Example, RowsConfig
from wenlu.data.rows.store import Row
from wenlu.data.rows.tally import Tally
from wenlu.tokenization.tokenizer import Tokenizer
from wenlu.training.objectives import best_span, outputs, span_logits

TASKS = ("classify", "tag", "span")
NEEDED = {
    "classify": "a text, such as {\"text\": \"a great film\"}",
    "tag": "a list of words, such as {\"tokens\": [\"in\", \"Paris\"]}",
    "span": "a question and a context, such as {\"question\": \"Who?\", \"context\": \"It was Ann.\"}",
}  # fmt: skip


@dataclass(frozen=True)
class Question:
    """One text of a file, and what else is asked of it."""

    where: str
    content: list[Any]
    """classify: the text, or two; tag: words; span: context and question."""
    kept: dict[str, Any] = field(default_factory=dict)
    """Its `id`, which is given out again."""


def read_questions(file: Path, task: str, fields: Sequence[str] = ()) -> list[Question]:
    """The texts of a file of records (jsonl, json, csv, tsv, parquet), or for classify of a text a line (.txt).

    `fields` names those that hold the text or texts, the words, or context and question. Raises UserError, with the
    place, for any record that is not such a one: none is left out.
    """
    if not file.is_file():
        raise UserError(f"no file {file}: give one of records, each with {NEEDED[task]}")
    counts = SourceCounts()
    if task == "classify" and kind_of(file) in (".txt", ""):
        found = [_question(f"{file}:{line}", {"text": text}, task, ()) for line, text in text_lines(file, counts)]
    else:
        found = [_question(f"{file}:{line}", record, task, fields) for line, record in records_of(file, counts)]
    if counts.bad_lines:
        raise UserError(
            f"{counted(counts.bad_lines, 'line')} of {file} cannot be read, the first at {counts.first_bad}: mend them"
        )
    if not found:
        raise UserError(f"{file} is empty: give records, each with {NEEDED[task]}")
    return found


def _question(where: str, record: dict[str, Any], task: str, fields: Sequence[str]) -> Question:
    known = {"classify": classify.TEXTS, "tag": tag.TOKENS}.get(task, ())
    one = next((name for name in known if name in record), None)
    names = fields or (("context", "question") if task == "span" else (one,))
    content = [record.get(name) for name in names]
    if task == "tag":
        content = content[0] if isinstance(content[0], list) else []
    wanted = 2 if task == "span" else 1
    if len(content) < wanted or not all(isinstance(text, str) and text.strip() for text in content):
        raise UserError(f"{where}: it must hold {NEEDED[task]}; other names of fields are given by --fields")
    return Question(where, content, {"id": record["id"]} if "id" in record else {})


class Predictor:
    """A tuned model that is asked of new texts.

    >>> Predictor(*load("runs/reviews")).predict([Question("", ["a great film"])])
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer):
        """Raises UserError for a model without a head for labels, tags or spans."""
        self.task = model.config.head
        if self.task not in TASKS:
            raise UserError(
                f"this {model.config.family} gives no labels, tags or spans: tune a bert by "
                "wenlu finetune --task classify, tag or span (for text that is written there is wenlu generate)"
            )
        self._model, self._tokenizer = model.eval(), tokenizer
        self._pad = tokenizer.pad_id or 0
        self._device = next(model.parameters()).device

    @torch.inference_mode()
    def predict(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        """A row for each: classify: `label`, `probability`, `probabilities` of all labels; tag: `tags` (null beyond the
        context), `probabilities` of them; span: `answer`, `start`, `end` (characters), and its `score` above no answer.
        `cut` says that a text was longer than the context. Raises UserError for one that cannot be read."""
        return {"classify": self._labels, "tag": self._tags, "span": self._answers}[self.task](questions)

    def _labels(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        labels, rows, cut = self._model.config.labels, [], []
        for question in questions:
            tally = Tally(question.where)
            example = Example(question.where, [question.content, labels[0]], question.content)
            rows.append(self._encoded(classify.encoded, example, tally, {labels[0]: 0}))
            cut.append(tally.truncated > 0)
        chances = outputs(self._model, self._batch(collate.classified, rows)).softmax(-1).tolist()
        found = []
        for each, is_cut in zip(chances, cut, strict=True):
            best = max(range(len(labels)), key=each.__getitem__)
            row = {"label": labels[best], "probability": each[best]}
            found.append({**row, "probabilities": dict(zip(labels, each, strict=True)), "cut": is_cut})
        return found

    def _tags(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        labels, rows, cut = self._model.config.labels, [], []
        for question in questions:
            tally = Tally(question.where)
            example = Example(question.where, [question.content, ["O"] * len(question.content)], question.content)
            rows.append(self._encoded(tag.encoded, example, tally, {"O": 0}))
            if tally.noted["words that the tokenizer reads as nothing"]:
                raise UserError(f"{question.where}: a word that the tokenizer reads as nothing: leave it out")
            cut.append(tally.truncated > 0)
        batch = self._batch(collate.tagged, rows)
        best = outputs(self._model, batch).softmax(-1).max(-1)
        found = []
        for row, question in enumerate(questions):
            places = batch["labels"][row] == 0
            tags = [labels[number] for number in best.indices[row][places].tolist()]
            beyond = [None] * (len(question.content) - len(tags))
            chances = best.values[row][places].tolist()
            found.append({"tags": tags + beyond, "probabilities": chances + beyond, "cut": cut[row]})
        return found

    def _answers(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        windows = span.Windows(self._tokenizer, self._model.config.context, RowsConfig().stride)
        rows: list[Row] = []
        for number, question in enumerate(questions):
            tally, (context, asked) = Tally(question.where), question.content
            made = windows.encoded(Example(question.where, [context, asked, [], []], context), number, tally)
            if not made:
                raise UserError(f"{question.where}: {next(iter(tally.dropped))}: shorten it")
            rows += [_arrays(row) for row in made]
        best: dict[int, dict[str, Any]] = {}
        for part in (rows[first : first + 32] for first in range(0, len(rows), 32)):
            logits = span_logits(self._model, self._batch(collate.spans, part))
            for row, first, last, score in zip(
                part, *(x.tolist() for x in best_span(logits, empty=False)), strict=True
            ):
                number, offsets = int(row["example"][0]), row["offsets"].reshape(-1, 2)
                if score > best.get(number, {"score": -math.inf})["score"]:
                    start, end = int(offsets[first, 0]), int(offsets[last, 1])
                    best[number] = {"start": start, "end": end, "score": score}
        texts = [question.content[0][best[n]["start"] : best[n]["end"]] for n, question in enumerate(questions)]
        return [{"answer": text, **best[number], "cut": False} for number, text in enumerate(texts)]

    def _encoded(self, encode: Callable, example: Example, tally: Tally, labels: dict[str, int]) -> Row:
        row = encode(example, self._tokenizer, self._model.config.context, tally, labels)
        if row is None:
            raise UserError(f"{example.where}: {next(iter(tally.dropped))}")
        return _arrays(row)

    def _batch(self, put_together: Callable, rows: list[Row]) -> dict[str, Tensor]:
        batch = put_together(rows, self._pad)
        if "types" in batch and self._model.config.types < 2:
            batch["types"] = np.zeros_like(batch["types"])
        return {name: torch.from_numpy(array).to(self._device) for name, array in batch.items()}


def _arrays(row: dict[str, Any]) -> Row:
    return {name: np.atleast_1d(np.asarray(value, dtype=np.int64)) for name, value in row.items()}
