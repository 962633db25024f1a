"""The same prompt in other forms, which should change no answer: how much they do is a prompt's robustness."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from wenlu.prompting.literal import change, is_chinese
from wenlu.prompting.template import Template

_LABEL = re.compile(r"^([^\W\d_][\w ]{0,30}?)([:：])( ?)", re.MULTILINE)
"""`Question: ` or `问：` at the beginning of a line."""
_OTHER_NAMES = {
    "question": "Q", "answer": "A", "q": "Question", "a": "Answer", "review": "Text", "text": "Input", "input": "Text",
    "sentiment": "Label", "label": "Category", "category": "Label", "passage": "Context", "context": "Passage",
    "sentence": "Text", "choices": "Options", "options": "Choices", "premise": "Text", "topic": "Category",
    "问题": "问", "答案": "答", "问": "问题", "答": "答案", "评论": "文本", "文本": "输入", "输入": "文本",
    "情感": "标签", "标签": "类别", "类别": "标签", "选项": "备选", "文章": "材料", "材料": "文章",
    "句子": "文本", "主题": "类别",
}  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """One other form."""

    name: str
    description: str
    """What is other, for people."""
    template: Template


def variants(template: Template, choices: int = 2) -> tuple[Variant, ...]:
    """All other forms that differ from the template and from each other, always the same in the same order.

    What is asked and what may be answered stays: fields, choices and the instruction's words. choices: most that an
    example has; forms with fewer letters are left out, and those whose written answers would be over at once.
    """
    found: list[Variant] = []
    for name, description, other in _all(template):
        enough = other.choices == "text" or len(other.letters) >= min(choices, len(template.letters))
        writable = template.stopped_at_once(template.stop) or not other.stopped_at_once(other.stop)
        if enough and writable and other != template and all(other != variant.template for variant in found):
            found.append(Variant(name, description, other))
    return tuple(found)


Form = tuple[str, str, Template]


def _all(template: Template) -> Iterator[Form]:
    as_text = not template.chat or any("prompt.demonstrations" in part.content for part in template.chat)
    if as_text:
        yield from _separators(template)
    yield from _labels(template)
    yield from _lines(template)
    if template.choices == "letters" or "options" in template.question:
        yield from _options(template)
    yield from _order(template)


def _separators(template: Template) -> Iterator[Form]:
    for name, text, description in (
        ("separator_line", "\n", "parts one below the other, without an empty line"),
        ("separator_rule", "\n\n---\n\n", "a rule between parts"),
        ("separator_hashes", "\n\n###\n\n", "### between parts"),
        ("separator_gap", "\n\n\n", "two empty lines between parts"),
    ):
        yield name, description, replace(template, separator=text)
    if not template.chat:
        for name, text, description in (
            ("answer_space", " ", "a space before the answer"),
            ("answer_joined", "", "the answer directly after the question"),
            ("answer_line", "\n", "the answer on a line of its own"),
        ):
            yield name, description, replace(template, delimiter=text)


def _labels(template: Template) -> Iterator[Form]:
    chinese = is_chinese(template.question)
    left, right = ("【", "】") if chinese else ("[", "]")

    def other(match: re.Match) -> str:
        return _OTHER_NAMES.get(match[1].lower(), match[1]) + match[2] + match[3]

    changes: tuple[tuple[str, str, Callable[[re.Match], str]], ...] = (
        ("labels_upper", "labels in capitals", lambda m: m[1].upper() + m[2] + m[3]),
        ("labels_lower", "labels in small letters", lambda m: m[1].lower() + m[2] + m[3]),
        ("labels_named", "labels by another name (Question, Q; 问题, 问)", other),
        ("labels_short", "labels by their first character", lambda m: m[1][0] + m[2] + m[3]),
        ("labels_narrow", "labels with a colon and a space", lambda m: m[1] + ": "),
        ("labels_wide", "labels with a full-width colon", lambda m: m[1] + "："),
        ("labels_line", "labels on lines of their own", lambda m: m[1] + m[2] + "\n"),
        ("labels_bracket", "labels in brackets", lambda m: left + m[1] + right + " " * (not chinese)),
        ("labels_dash", "labels with a dash", lambda m: m[1] + " - "),
        ("labels_bold", "labels in bold, as Markdown", lambda m: f"**{m[1]}{m[2]}**{m[3]}"),
        ("labels_heading", "labels as headings of Markdown", lambda m: f"## {m[1]}\n"),
    )
    for name, description, how in changes:

        def over(text: str, how: Callable[[re.Match], str] = how) -> str:
            # What follows the last label is the answer, and comes after the template's own delimiter.
            return _LABEL.sub(how, text).rstrip(" \n") if text == text.rstrip(" \n") else _LABEL.sub(how, text)

        yield name, description, replace(template, question=change(template.question, over))


def _lines(template: Template) -> Iterator[Form]:
    def lines(joint: str) -> Template:
        return replace(template, question=change(template.question, lambda text: re.sub(r"\n+", joint, text)))

    yield "lines_spaced", "an empty line between the lines of a question", lines("\n\n")
    yield "lines_joined", "the lines of a question in one line", lines(" ")
    yield "lines_barred", "the lines of a question in one line, with bars between", lines(" | ")
    opening, closing = ("“", "”") if is_chinese(template.question) else ('"', '"')
    filled = re.compile(r"(?<=[:：])( ?)([\U000f0000-\U000ffffd])$", re.MULTILINE)
    quoted = change(template.question, lambda text: filled.sub(rf"\1{opening}\2{closing}", text))
    yield "fields_quoted", "what stands after a label in quotation marks", replace(template, question=quoted)


def _options(template: Template) -> Iterator[Form]:
    if template.choices == "letters":
        for name, letters, description in (
            ("letters_small", "abcdefghijklmnopqrstuvwxyz", "small letters for options"),
            ("letters_numbers", "123456789", "numbers for options"),
            ("letters_stems", "甲乙丙丁戊己庚辛壬癸", "甲乙丙丁 for options"),
        ):
            yield name, description, replace(template, letters=letters)
    for name, option, description in (
        ("options_brackets", "({{ letter }}) {{ choice }}", "letters of options in brackets"),
        ("options_bracket", "{{ letter }}) {{ choice }}", "a bracket after letters of options"),
        ("options_colon", "{{ letter }}: {{ choice }}", "a colon after letters of options"),
        ("options_comma", "{{ letter }}、{{ choice }}", "、 after letters of options"),
    ):
        yield name, description, replace(template, option=option)
    for name, joint, description in (
        ("options_row", "  ", "options in one row"),
        ("options_semicolons", "; ", "options in one row, with semicolons"),
    ):
        yield name, description, replace(template, option_separator=joint)


def _order(template: Template) -> Iterator[Form]:
    def turned(text: str) -> str:
        *asked, last = text.split("\n")
        return "\n".join([*asked[::-1], last])

    yield (
        "order_turned",
        "the lines before the last in the opposite order",
        replace(template, question=change(template.question, turned)),
    )
    if template.instruction:
        within = template.instruction + "\n" + template.question
        yield (
            "instruction_within",
            "the instruction at the head of every question",
            replace(template, instruction="", question=within),
        )
