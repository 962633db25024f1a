"""Instructions to begin a search with, in English and Chinese, and edits: sentences dropped, swapped, shortened."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from wenlu.base.errors import UserError
from wenlu.prompting.literal import change, is_chinese, words
from wenlu.prompting.template import compiled

Task = Literal["classify", "choose", "number", "free"]
Language = Literal["en", "zh"]

BANK: dict[tuple[Task, Language], tuple[str, ...]] = {
    ("classify", "en"): (
        "Read the text and say which category it belongs to.",
        "Decide on the one label that fits the text best. Answer with the label only.",
        "Classify each of the following texts.",
        "You are a careful annotator. Give every text its most fitting label.",
        "What is this text? Choose one of the labels.",
        "Pay attention to the whole text, not to single words. Then name its category.",
        "Below are texts, each followed by the category that an expert gave it.",
        "Label the text. If in doubt, take the label that most people would choose.",
    ),
    ("choose", "en"): (
        "Choose the right answer.",
        "Each question has exactly one correct answer among the choices. Find it.",
        "Answer the following multiple-choice questions. Give the answer only.",
        "You are an expert taking an exam. Select the best answer to every question.",
        "Read the question and all the choices before you answer.",
        "Rule out the wrong choices first. Then give the one that is left.",
        "Below are questions, each followed by its correct answer.",
        "Pick the choice that is most likely to be true.",
    ),
    ("number", "en"): (
        "Solve the problem and give the result as a number.",
        "Work out the answer step by step. End with the number.",
        "Answer each of the following problems with a number only.",
        "You are good at arithmetic. Check every step before you give the result.",
        "Read the problem carefully. Write down what is known, then calculate what is asked.",
        "Below are problems, each followed by its solution.",
    ),
    ("free", "en"): (
        "Answer the question.",
        "Give a short and exact answer. Do not explain it.",
        "Answer in as few words as possible.",
        "You are a well-informed assistant. Answer every question truthfully and briefly.",
        "Read what is given and answer from it alone.",
        "Below are questions, each followed by a short answer.",
    ),
    ("classify", "zh"): (
        "阅读文本，判断它属于哪个类别。",
        "选出最符合文本的一个标签，只回答标签。",
        "请对下列文本逐一分类。",
        "你是一位细心的标注员。请给每段文本标上最合适的标签。",
        "这段文本是什么类别？请从标签中选择一个。",
        "请注意整段文本的意思，而不是个别词语。然后说出它的类别。",
        "下面是一些文本，每段之后是专家给出的类别。",
        "给文本打上标签。拿不准时，选择多数人会选的标签。",
    ),
    ("choose", "zh"): (
        "请选择正确答案。",
        "每道题的选项中只有一个正确答案，请把它找出来。",
        "回答下列单项选择题，只给出答案。",
        "你是一位正在考试的专家。请为每道题选出最佳答案。",
        "作答之前，请读完题目和所有选项。",
        "先排除错误的选项，再给出剩下的那一个。",
        "下面是一些题目，每题之后是正确答案。",
        "请选出最可能正确的选项。",
    ),
    ("number", "zh"): (
        "请解答这道题，并用数字给出结果。",
        "一步一步地推算，最后写出数字。",
        "只用数字回答下列各题。",
        "你擅长计算。给出结果之前，请检查每一步。",
        "仔细读题。先写出已知条件，再计算所求。",
        "下面是一些题目，每题之后是它的解答。",
    ),
    ("free", "zh"): (
        "请回答问题。",
        "给出简短而准确的答案，不要解释。",
        "用尽可能少的字回答。",
        "你是一位知识丰富的助手。请如实、简短地回答每个问题。",
        "阅读所给的内容，只根据它回答。",
        "下面是一些问题，每个问题之后是简短的答案。",
    ),
}
"""Task and language → instructions; the first is the plainest."""

_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|[。！？；]|\n|$)[”\"’)]*\s*", re.DOTALL)
_LEADS = re.compile(r"^(?:please\s+|请|you are [^.]*\.\s*|你是[^。]*。)", re.IGNORECASE)
_CLAUSE = re.compile(r"\s*(?:\([^)]*\)|（[^）]*）|[,，][^,，.。!?！？;；]*)(?=[,，.。!?！？;；]|$)")


@dataclass(frozen=True)
class Edit:
    """One change of an instruction."""

    kind: Literal["drop", "swap", "shorten"]
    text: str
    """The instruction after it."""
    description: str
    """What was changed, for people."""


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with the space after it; together they are the text."""
    return [match[0] for match in _SENTENCE.finditer(text) if match[0]]


def edits(instruction: str) -> list[Edit]:
    """Every instruction that one edit makes of this one, none twice, always in the same order.

    A sentence is dropped, two are swapped, or one is shortened by a clause, a bracket or its opening. What would part
    a Jinja block is no edit. Source: the edits of GrIPS, Prasad et al. 2022, arXiv 2203.07281, by sentences and
    clauses, without a parser.
    """
    found: dict[str, Edit] = {}
    for kind, text, description in _edited(instruction):
        text = text.strip()
        if text and text != instruction.strip() and words(text).strip() and _is_jinja(text):
            found.setdefault(text, Edit(kind, text, description))
    return list(found.values())


def some_edits(instruction: str, count: int, seed: int) -> list[Edit]:
    """As many of the edits, or all where there are fewer, in an order that the seed decides."""
    if count < 1:
        raise UserError(f"at least 1 edit must be wanted, not {count}")
    order = sorted(edits(instruction), key=lambda edit: hashlib.sha256(f"{seed}\0{edit.text}".encode()).digest())
    return order[:count]


def _is_jinja(text: str) -> bool:
    try:
        compiled(text, "an edit")
    except UserError:
        return False
    return True


def _edited(instruction: str) -> Iterator[tuple[Literal["drop", "swap", "shorten"], str, str]]:
    def whole(pieces: list[str]) -> str:
        gap = "" if is_chinese(instruction) else " "
        return "".join(piece if piece[-1:].isspace() else piece + gap for piece in pieces)

    parts: list[str] = []

    def keep(text: str) -> str:
        parts.extend(sentences(text))
        return text

    change(instruction, keep)
    back = _Tags(instruction)
    for place in range(len(parts)):
        yield "drop", back(whole(parts[:place] + parts[place + 1 :])), f"sentence {place + 1} dropped"
    for first in range(len(parts)):
        for second in range(first + 1, len(parts)):
            order = list(parts)
            order[first], order[second] = order[second], order[first]
            yield "swap", back(whole(order)), f"sentences {first + 1} and {second + 1} swapped"
    for place, part in enumerate(parts):
        shorter = [part[: match.start()] + part[match.end() :] for match in _CLAUSE.finditer(part)]
        shorter += [_capital(_LEADS.sub("", part, count=1))] if _LEADS.match(part) else []
        for text in shorter:
            yield "shorten", back(whole([*parts[:place], text, *parts[place + 1 :]])), f"sentence {place + 1} shortened"


class _Tags:
    """Puts tags back that `literal.change` took out."""

    def __init__(self, source: str):
        self._source = source

    def __call__(self, text: str) -> str:
        return change(self._source, lambda _: text)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
