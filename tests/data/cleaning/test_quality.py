"""Rules for whole documents: what is dropped by which, in English and Chinese, and what must not be."""

import random

import pytest

from wenlu.data.cleaning.quality import DOCUMENT_RULES, Measures, character_counts
from wenlu.data.cleaning.units import unit_numbers

WORDS = [a + b for a in ("the", "a", "of", "to", "炉", "in") for b in ("was", "his", "火", "with", "as", "had")]


def prose(words: int) -> str:
    chooser = random.Random(words)
    return " ".join(chooser.choice(WORDS) + chooser.choice(WORDS) for _ in range(words))


def verdict(text: str) -> str | None:
    measures = Measures()
    measures.add(text, unit_numbers(text))
    return next((name for name, drops in DOCUMENT_RULES.items() if drops(measures)), None)


KEPT = {
    "a poem": "床前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。",
    "a line": "白日依山盡",
    "a pair": "Hi.\t嗨。",
    "refrains": "采采芣苢，薄言采之。采采芣苢，薄言有之。\n" * 3,
    "a song": "Row, row, row your boat\nGently down the stream\n" * 8,
    "prose": prose(600),
    "program text": "def f(x):\n    return {'a': [x + 1, (x ** 2) / 3]}[0] if x > 0 else None  # comment\n",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता",
    "on JavaScript": "To enable JavaScript in your browser, open its settings. " + prose(400),
}
DROPPED = {
    "short": ["", " \n", "x", "12 34", "天", "???!!!"],
    "symbols": ["=-=-=-=-= 1234 5678 90 +++ *** name $$$", "||||||||||||||||||| 天气真好 ||||||||"],
    "placeholder": [
        "Please enable JavaScript to view this page.",
        "404 Not Found\nnginx server",
        "Lorem ipsum dolor sit amet, consectetur adipiscing elit.",
        "您访问的页面不存在，请返回。",
        "请启用 JavaScript 后继续浏览本站",
    ],
    "repetitive": ["Buy now, it is cheap!\n" * 100, "这家店真的好，快来买吧，" * 120, "all work and no play " * 80],
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name):
    assert verdict(KEPT[name]) is None


@pytest.mark.parametrize("rule, text", [(rule, text) for rule, texts in DROPPED.items() for text in texts])
def test_dropped(rule, text):
    assert verdict(text) == rule


@pytest.mark.parametrize("text", ["plain " * 1000, "天气真好，abc\n" * 600, "🙂𠀀é " * 1200, "short"])
def test_characters_are_counted_alike_by_every_way(text):
    expected = {character: text.count(character) for character in set(text)}
    assert dict(character_counts(text)) == expected


def test_parts_add_up():
    whole, parts = Measures(), Measures()
    text = prose(900)
    whole.add(text + text, unit_numbers(text + text))
    for _ in range(2):
        parts.add(text, unit_numbers(text))
    assert (whole.visible, whole.letters) == (parts.visible, parts.letters)
