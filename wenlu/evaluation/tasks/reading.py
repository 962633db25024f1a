"""Questions on a passage whose answers stand in it: SQuAD, XQuAD and CMRC 2018, answered in words."""

from __future__ import annotations

import json
from typing import Any

from wenlu.base.errors import UserError
from wenlu.data.rows.span import _as_list
from wenlu.evaluation.task import Task
from wenlu.evaluation.tasks.source import Source, wanted
from wenlu.evaluation.writing import Writing
from wenlu.metrics.text import is_chinese
from wenlu.prompting.examples import Example, content_id
from wenlu.prompting.template import Template

FILES = {
    "xquad.en": (("xquad.en.json", "xquad.en.dev32.json"), "google/xquad/xquad.en:validation"),
    "xquad.zh": (("xquad.zh.json", "xquad.zh.dev32.json"), "google/xquad/xquad.zh:validation"),
    "cmrc2018": (("cmrc2018_dev.json",), "hfl/cmrc2018:validation"),
    "squad": (("dev-v1.1.json",), "rajpurkar/squad:validation"),
}
ENGLISH = Template("Passage: {{ context }}\nQuestion: {{ question }}\nAnswer:")
CHINESE = Template("文章：{{ context }}\n问题：{{ question }}\n答案：", delimiter="")


def read(source: Source, name: str) -> Task:
    """One of these sets: exact match and F1 as its script computes them; questions on one passage are one group."""
    files, hub = FILES[name]
    if source.folder is None:
        rows = source.rows(name, "", "", hub)
    else:
        found = next((file for file in files if source.find(file) is not None), files[0])
        rows = _questions(source.read(name, found), found)
    examples, wrong = [], 0
    for number, row in enumerate(rows):
        where = f"task {name}, row {number}"
        (context, _), places = wanted(row, ("context", "question"), where), _answers(row, where)
        wrong += sum(not isinstance(start, int) or context[start : start + len(text)] != text for start, text in places)
        fields = {key: row[key] for key in ("context", "question", "is_impossible") if key in row}
        group = content_id({"context": context})
        examples.append(
            Example(str(row.get("id", number)), fields, answers=tuple(text for _, text in places), group=group)
        )
    chinese = is_chinese("".join(answer for example in examples for answer in example.answers))
    notes = (
        (f"{wrong:,} answers do not stand where their offset says; their texts count all the same",) if wrong else ()
    )
    kind = Writing("span", chinese=chinese, max_tokens=48)
    return Task(name, kind, tuple(examples), CHINESE if chinese else ENGLISH, notes=notes)


def _answers(row: dict[str, Any], where: str) -> list[tuple[Any, str]]:
    """Where each right answer begins, and what it says; those without a text are none."""
    (answers,) = wanted({**row, "answers": _as_list(row.get("answers", ())) or []}, ("answers",), where, list)
    if not all(isinstance(one, dict) for one in answers):
        raise UserError(f"{where}: answers are objects with text and answer_start, not {str(answers)[:60]}: mend them")
    return [(one.get("answer_start"), one["text"]) for one in answers if isinstance(one.get("text"), str)]


def _questions(content: bytes, file: str) -> list[dict[str, Any]]:
    try:
        articles = json.loads(content)["data"]
        paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
        return [{**asked, "context": one["context"]} for one in paragraphs for asked in one["qas"]]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file} is not of SQuAD's form: data, in it paragraphs, in them context and qas") from None
