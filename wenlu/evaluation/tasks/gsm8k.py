"""GSM8K (Cobbe et al. 2021): grade-school mathematics, of whose written solution the last number counts."""

from __future__ import annotations

from wenlu.evaluation.task import Task
from wenlu.evaluation.tasks.source import Source, wanted
from wenlu.evaluation.writing import Writing
from wenlu.prompting.answers import Extractor
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Template

ARCHIVE = "gsm8k.tar.xz"
KIND = Writing(
    "answer", Extractor("number"), Extractor("number", marked=True), stop=("Question:",), max_tokens=400
)  # fmt: skip


def read(source: Source, name: str) -> Task:
    """The test part, with shots from the training part. exact_match: the number announced, else the last one;
    exact_match_strict: the one announced."""
    test = source.rows(name, "gsm8k/test.jsonl", ARCHIVE, "openai/gsm8k/main:test")
    train = source.rows(name, "gsm8k/train.jsonl", ARCHIVE, "openai/gsm8k/main:train")
    template = Template(question="Question: {{ question }}\nAnswer:")
    parts = [
        tuple(
            Example(f"{part}-{n}", {"question": question}, answers=(answer,))
            for n, row in enumerate(rows)
            for question, answer in [wanted(row, ("question", "answer"), f"task {name}, {part} row {n}")]
        )
        for part, rows in (("test", test), ("train", train))
    ]
    return Task(name, KIND, parts[0], template, parts[1])
