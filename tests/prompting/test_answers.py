"""Answers taken out of texts: numbers, letters, choices, fields; and nothing guessed."""

import json
import re
import tarfile
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenlu.base.errors import UserError
from wenlu.metrics.text import normalised
from wenlu.prompting.answers import Extractor, extract_all, named_choice
from wenlu.prompting.examples import Example
from wenlu.prompting.numbers import chinese, numbers, written

NUMBER, LETTER = Extractor("number"), Extractor("letter")


@pytest.mark.parametrize(
    "text, found",
    [
        ("So 3 + 4 = 7, and 7 * 2 = 14.\n#### 14", "14"),
        ("#### 1,234,567", "1234567"),
        ("The answer is $18.50. There were 3 of them.", "18.5"),
        ("The answer to question 3 is 12.", "12"),
        ("Answer: **-7**", "-7"),
        ("10-5=5", "5"),
        ("He has ５，０００ coins", "5000"),
        ("\\boxed{3/4} of 8", "0.75"),
        ("one third, 2/6", "1/3"),
        ("答案是三十六。共有两步", "36"),
        ("答案：一百二十个", "120"),
        ("所以一共有两千零五个苹果", "2005"),
        ("三", "3"),
        ("三个。", "3"),
        ("共３万５千人", "35000"),
        ("人口约1.4亿", "140000000"),
        ("银子二十两，又添三四个", "20"),
        ("两个", "2"),
        ("共两百两", "200"),
        ("十分之八九是真", None),
        ("我们一起走，十分高兴，万一下雨", None),
        ("a4 paper, A123, v1.25.3", None),
        ("about .5 or so", "0.5"),
        ("-.25", "-0.25"),
        ("no idea", None),
        ("", None),
    ],
)
def test_numbers(text, found):
    assert NUMBER.extract(text) == found


def test_a_marked_number_is_announced():
    assert Extractor("number", marked=True).extract("12 and 13") is None
    assert Extractor("number", marked=True).extract("12\n#### 13") == "13"


@pytest.mark.parametrize(
    "numeral, value",
    [
        ("十", 10), ("十五", 15), ("二十", 20), ("一百零五", 105), ("二百五", 250), ("两千零五", 2005),
        ("一万二", 12_000),
        ("三千五", 3500), ("一万零二", 10_002), ("一亿二千万", 120_000_000), ("三百万", 3_000_000), ("二〇二四", 2024),
        ("零", 0), ("负三点一四", Fraction(-314, 100)), ("四分之三", Fraction(3, 4)), ("百分之二十", 20),
        ("贰拾伍", 25),
        ("千万", None), ("万", None), ("一百二百", None), ("一二十", None), ("点五", None),
        ("三点", None), ("百", None),
    ],
)  # fmt: skip
def test_chinese_numerals(numeral, value):
    assert chinese(numeral) == value


def said(n: int) -> str:
    """n < 10,000 as it is said in full."""
    digits, units, text = "零一二三四五六七八九", ["千", "百", "十", ""], ""
    for figure, unit in zip(f"{n:04d}", units, strict=True):
        text += digits[int(figure)] + unit if figure != "0" else "零"
    while "零零" in text:
        text = text.replace("零零", "零")
    return text.strip("零") or "零"


@given(st.integers(0, 9999), st.integers(1, 9999))
def test_numerals_mean_what_they_say(low, high):
    assert chinese(said(low)) == low
    gap = "零" if 0 < low < 1000 else ""
    assert chinese(said(high) + "万" + gap + (said(low) if low else "")) == high * 10_000 + low


@pytest.mark.data
def test_the_answers_of_gsm8k_are_those_of_its_own_expression(data_dir):
    source = data_dir / "evaluation" / "gsm8k.tar.xz"
    with tarfile.open(source) as packed, packed.extractfile("gsm8k/test.jsonl") as file:
        answers = [json.loads(line)["answer"] for line in file]
    own = [re.search(r"#### (-?[0-9.,]+)", answer)[1].replace(",", "") for answer in answers]
    assert len(own) == 1319 and [NUMBER.extract(answer) for answer in answers] == own


@given(st.fractions(max_denominator=200))
def test_equal_numbers_have_one_form(value):
    assert numbers(written(value)) == [value] and Fraction(written(value)) == value


@pytest.mark.parametrize(
    "text, found",
    [
        ("B", "B"), ("(b) is wrong, (B)", "B"), ("B. Paris", "B"), ("The answer is (C).", "C"), ("答案是Ｄ。", "D"),
        ("答：A", "A"), ("A dog is an animal.", None), ("Either (A) or (B).", None), ("I think\n**C**", "C"),
        ("The answer is A... no, the answer is D", "D"), ("The answer is Apple", None), ("E", None), ("", None),
    ],
)  # fmt: skip
def test_letters(text, found):
    assert LETTER.extract(text, ("w", "x", "y", "z")) == found


def test_a_marked_letter_is_announced():
    assert Extractor("letter", marked=True).extract("B") is None
    assert Extractor("letter", marked=True, letters="甲乙丙").extract("答案为乙") == "乙"


@pytest.mark.parametrize(
    "text, choices, found",
    [
        (" Good.", ("bad", "good"), "good"), ("It is a good film", ("bad", "good"), "good"),
        ("not bad but good", ("bad", "good"), None), ("goodness", ("bad", "good"), None),
        ("It is not valid", ("valid", "not valid"), "not valid"), ("not valid, or valid", ("valid", "not valid"), None),
        ("It is -3.", ("3", "5"), None), ("It is 3.", ("3", "5"), "3"), ("30% of it", ("30", "30%"), "30%"),
        ("30% of it", ("30", "40"), None), ("in C++", ("C", "Java"), None), ("in C++", ("C", "C++"), "C++"),
        ("这是正面评价", ("正面", "负面"), "正面"), ("ＹＥＳ", ("yes", "no"), "yes"), ("?", ("yes", "no"), None),
    ],
)  # fmt: skip
def test_choices(text, choices, found):
    assert named_choice(text, choices) == found == Extractor("choice").extract(text, choices)


def test_other_kinds():
    assert Extractor("regex", pattern=r"=> (\w+)").extract("a => x\nb => Y") == "y"
    assert Extractor("regex", pattern=r"=> (\w+)", take="first").extract("a => x, b => y") == "x"
    assert Extractor("regex", pattern="z").extract("a") is None
    field = Extractor("json", field="a.b")
    assert field.extract('{bad} so: {"a": {"b": "Paris "}} ok') == "paris" and field.extract('{"a": 1}') is None
    assert Extractor("json", field="n").extract('{"n": 3}') == "3" and Extractor("json", field="n").extract("{") is None
    assert Extractor("last_line").extract("x\n 巴 黎。\n\n") == "巴黎" and Extractor("last_line").extract("\n") is None
    assert Extractor().extract(" Yes! ") == "yes" and Extractor().extract("...") is None


def test_right_answers():
    sum_ = Example("s", {}, answers=("1,000", "a thousand"))
    assert NUMBER.is_right("1000", sum_) and not NUMBER.is_right("100", sum_) and not NUMBER.is_right(None, sum_)
    gsm = Example("g", {}, answers=("2 + 2 = 4\n#### 4",))
    assert NUMBER.is_right("4", gsm)
    film = Example("f", {}, ("bad", "good"), 1)
    assert LETTER.is_right("B", film) and not LETTER.is_right("A", film) and Extractor("choice").is_right("good", film)
    assert Extractor().is_right("two", Example("t", {}, answers=("2", "Two!")))


@pytest.mark.parametrize(
    ("said", "right"), [("3", "-3"), ("3", "3%"), ("C#", "C++"), ("C", "C#"), ("3", "$3"), ("3 €", "3")]
)
def test_signs_tell_answers_apart(said, right):
    for kind in ("text", "last_line"):
        one, example = Extractor(kind), Example("x", {}, answers=(right,))
        assert not one.is_right(one.extract(said), example) and one.is_right(one.extract(f"**{right}**."), example)
    assert named_choice(said, (right, said)) == said and named_choice(right, (said, right)) == right


def test_what_is_not_found_is_counted():
    found = extract_all(NUMBER, ["4", "?", "五"], [Example(str(n), {}) for n in range(3)])
    assert found.values == ("4", None, "5") and found.missing == 1


@given(st.text())
def test_normal_forms_stay(text):
    assert normalised(normalised(text)) == normalised(text)


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda: Extractor("regex"), "a pattern is given for regex, a field for json"),
        (lambda: Extractor("json"), "a pattern is given for regex, a field for json"),
        (lambda: Extractor("number", pattern="x"), "neither for other kinds"),
        (lambda: Extractor("text", marked=True), "only a number or a letter can be marked, not a text"),
        (lambda: Extractor("regex", pattern="("), r"the pattern '\(' is no regular expression"),
        (
            lambda: LETTER.is_right("A", Example("x", {}, answers=("y",))),
            "has no gold choice, so no",
        ),
        (lambda: Extractor().is_right("A", Example("x", {})), "example x has no gold answer"),
        (
            lambda: Extractor("letter", letters="AB").is_right("A", Example("x", {}, ("r", "s", "t"), 2)),
            "example x has 3 choices, but the extractor only 2 letters: give more letters",
        ),
    ],
)
def test_refused(act, message):
    with pytest.raises(UserError, match=message):
        act()
