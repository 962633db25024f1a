"""Prompts to begin a search with: a grammar of forms and the bank of instructions, drawn by a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from wenlu.base.errors import UserError
from wenlu.prompting.examples import Example
from wenlu.prompting.literal import is_chinese
from wenlu.prompting.search.instructions import BANK, Language, Task
from wenlu.prompting.template import CHAT, Template, common_fields

_NAMES = {
    "question": ("Question", "问题"), "text": ("Text", "文本"), "sentence": ("Sentence", "句子"),
    "passage": ("Passage", "文章"), "context": ("Context", "材料"), "premise": ("Premise", "前提"),
    "hypothesis": ("Hypothesis", "假设"), "title": ("Title", "标题"), "review": ("Review", "评论"),
}  # fmt: skip
"""Field → its label in English and Chinese; others are their own labels."""
_ANSWERS = {
    ("classify", "en"): ("Label", "Category", "Answer"),
    ("choose", "en"): ("Answer", "Correct answer", "A"),
    ("number", "en"): ("Answer", "Result", "A"),
    ("free", "en"): ("Answer", "A"),
    ("classify", "zh"): ("标签", "类别", "答案"),
    ("choose", "zh"): ("答案", "正确答案", "答"),
    ("number", "zh"): ("答案", "结果", "答"),
    ("free", "zh"): ("答案", "答"),
}
_SHAPES = {"en": ("{}: ", "[{}] ", "{}:\n", "**{}:** "), "zh": ("{}：", "【{}】", "{}：\n", "{}: ")}
"""How a label stands before its text."""


@dataclass(frozen=True)
class Grammar:
    """What candidates may look like. Raises UserError without fields."""

    fields: tuple[str, ...]
    """Of the examples, in the order in which they are shown."""
    task: Task = "free"
    language: Language = "en"
    choices: Literal["none", "text", "letters"] = "none"
    """Whether choices are answered by text or by letters; letters shows them as options."""
    show_options: bool = False
    """Whether options are shown where choices are answered by text."""
    chat: bool = False
    """Conversations instead of texts."""

    def __post_init__(self):
        if not self.fields or not all(name.isidentifier() for name in self.fields):
            raise UserError(f"a grammar needs fields that a template can name, not {list(self.fields)}")

    @property
    def rules(self) -> dict[str, tuple]:
        """What is chosen freely, and among what; the first of each is the plainest."""
        chinese = self.language == "zh"
        found: dict[str, tuple] = {
            "instruction": ("", *BANK[self.task, self.language]),
            "answer": _ANSWERS[self.task, self.language],
            "shape": _SHAPES[self.language],
            "joint": ("\n", "\n\n"),
        }
        if not self.chat:
            found["delimiter"] = ("", "\n") if chinese else (" ", "\n")
            found["separator"] = ("\n\n", "\n\n###\n\n")
        if self.choices == "letters" or self.show_options:
            found["option"] = (
                "{{ letter }}. {{ choice }}",
                "({{ letter }}) {{ choice }}",
                "{{ letter }}、{{ choice }}",
            )
        return found

    @property
    def size(self) -> int:
        """How many templates the grammar has."""
        return math.prod(map(len, self.rules.values()))

    def template(self, number: int) -> Template:
        """One of them, from 0, which is the plainest."""
        assert 0 <= number < self.size
        picked = {}
        for name, options in self.rules.items():
            number, place = divmod(number, len(options))
            picked[name] = options[place]
        shape: str = picked["shape"]
        lines = [shape.format(self._label(name)) + "{{ " + name + " }}" for name in self.fields]
        if "option" in picked:
            lines.append("{{ options }}")
        lines.append(shape.format(picked["answer"]).rstrip())
        found = Template(
            question=picked["joint"].join(lines),
            instruction=picked["instruction"],
            choices="letters" if self.choices == "letters" else "text",
            chat=CHAT if self.chat else (),
        )
        return replace(found, **{name: picked[name] for name in ("delimiter", "separator", "option") if name in picked})

    def draw(self, count: int, seed: int) -> list[Template]:
        """So many different templates, the plainest first, the others as the seed decides.

        Raises UserError for more than there are.
        """
        if not 1 <= count <= self.size:
            raise UserError(f"the grammar has {self.size} templates: draw at least 1 and no more, not {count}")
        drawn = random.Random(seed).sample(range(1, self.size), count - 1)
        return [self.template(number) for number in (0, *drawn)]

    def _label(self, name: str) -> str:
        english, chinese = _NAMES.get(name, (name.replace("_", " ").capitalize(), name))
        return chinese if self.language == "zh" else english


def grammar_of(
    examples: Sequence[Example], fields: Sequence[str] = (), *, letters: bool = False, chat: bool = False
) -> Grammar:
    """The grammar that fits examples: their fields (these, or all that are common), their task, and their language.

    Few choices that are always the same are labels. The language is Chinese where most examples have a Chinese
    character. Raises UserError where the examples have no common field.
    """
    if not examples:
        raise UserError("there are no examples to find a grammar for: give some")
    shown = tuple(fields) or common_fields(examples)
    if not shown:
        raise UserError("the examples have no field of text in common: name their fields alike")
    texts = [" ".join(str(one.fields[name]) for name in shown) for one in examples]
    chinese = sum(map(is_chinese, texts)) * 2 > len(texts)
    return Grammar(
        shown, _task(examples), "zh" if chinese else "en",
        choices="none" if not examples[0].choices else "letters" if letters else "text",
        show_options=not letters and bool(examples[0].choices), chat=chat,
    )  # fmt: skip


def _task(examples: Sequence[Example]) -> Task:
    if examples[0].choices:
        return "classify" if len({one.choices for one in examples}) == 1 else "choose"
    return "number" if all(one.right.strip().lstrip("-").replace(".", "", 1).isdigit() for one in examples) else "free"
