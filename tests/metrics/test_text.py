"""BLEU and chrF are sacreBLEU's, to the last digit, with its signature; exact matches and variety by hand."""

import random

import pytest
from sacrebleu.metrics import BLEU, CHRF

from wenlu.metrics.intervals import mean
from wenlu.metrics.text import bleu, chrf, distinct_n, exact_match, is_chinese, normalised

WORDS = {"en": "the stove burns in a cold house , and Ann is warm .".split(), "zh": list("炉火在屋里，人们很暖和。")}


def texts(language: str, seed: int, count: int) -> tuple[list[str], list[str]]:
    """Sentences and such as differ from them in a few words."""
    draw, space = random.Random(seed), " " if language == "en" else ""
    wanted = [[draw.choice(WORDS[language]) for _ in range(draw.randint(1, 14))] for _ in range(count)]
    written = [[draw.choice(WORDS[language]) if draw.random() < 0.2 else word for word in words] for words in wanted]
    return [space.join(words) for words in written], [space.join(words) for words in wanted]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("seed", range(5))
def test_they_are_sacrebleus(language, seed):
    written, wanted = texts(language, seed, 30)
    theirs = BLEU(tokenize="zh" if language == "zh" else "13a").corpus_score(written, [wanted])
    ours = bleu(written, wanted)
    assert ours.value == theirs.score and ours.interval.low < theirs.score < ours.interval.high
    assert ours.signature.startswith("nrefs:1|case:mixed|eff:no|tok:") and (
        f"tok:{'zh' if language == 'zh' else '13a'}|" in ours.signature
    )
    letters = chrf(written, wanted)
    assert letters.value == CHRF().corpus_score(written, [wanted]).score and "nc:6|nw:0" in letters.signature


@pytest.mark.parametrize("language", ["en", "zh"])
def test_several_references_are_sacrebleus_too(language):
    written, wanted = texts(language, 1, 20)
    _, others = texts(language, 2, 20)
    several = [[one, other] if n % 3 else [one] for n, (one, other) in enumerate(zip(wanted, others))]
    streams = [wanted, [other if n % 3 else None for n, other in enumerate(others)]]
    theirs = BLEU(tokenize="zh" if language == "zh" else "13a").corpus_score(written, streams)
    assert bleu(written, several).value == theirs.score != bleu(written, wanted).value
    assert bleu(written, several).signature.startswith("nrefs:var|")
    assert chrf(written, several).value == CHRF().corpus_score(written, streams).score
    assert bleu(written, [[one] for one in wanted]) == bleu(written, wanted)


def test_texts_of_one_group_are_resampled_together():
    written, wanted = texts("en", 3, 10)
    thrice = [written * 3, wanted * 3]
    alone, grouped = bleu(*thrice), bleu(*thrice, [n % 10 for n in range(30)])
    once = bleu(written, wanted)
    assert grouped.value == pytest.approx(once.value) and grouped.value == alone.value
    width = [one.interval.high - one.interval.low for one in (once, grouped, alone)]
    assert width[1] == pytest.approx(width[0]) and width[1] > 1.3 * width[2]
    assert bleu(*thrice, ["a"] * 30).interval is None and chrf(*thrice, ["a"] * 30).interval is None


def test_an_interval_is_as_wide_as_resampling_whole_texts_makes_it():
    written, wanted = texts("en", 0, 40)
    draw, scores = random.Random(1), []
    for _ in range(300):
        places = draw.choices(range(40), k=40)
        sides = [[side[place] for place in places] for side in (written, wanted)]
        scores.append(BLEU().corpus_score(sides[0], [sides[1]]).score)
    low, high = sorted(scores)[7], sorted(scores)[-8]
    interval = bleu(written, wanted).interval
    assert abs(interval.low - low) < (high - low) / 5 and abs(interval.high - high) < (high - low) / 5


def test_one_text_has_no_interval():
    assert bleu(["the stove burns in it"], ["the stove burns in it"]).interval is None


def test_nothing_right_is_zero():
    found = bleu(["a b c d e"] * 3, ["v w x y z"] * 3)
    assert found.value == 0 and (found.interval.low, found.interval.high) == (0, 0)


def test_what_counts_as_chinese():
    assert is_chinese("炉火 stove") is False and is_chinese("炉火在屋里 stove") and not is_chinese("")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("  The  answer. ", "the answer"),
        ("“《红楼梦》。”", "红楼梦"),
        ("ＡＢＣ１２３，", "abc123"),
        ("炉 火 在 stove 里", "炉火在stove里"),
        ("3.5", "3.5"),
        ("(-3)", "-3"),
        ("50%!", "50%"),
        ("−3", "-3"),
        ("50 %", "50%"),
        ("5 ‰.", "5‰"),
        ("C++.", "c++"),
        ("$3 or €3", "$3 or €3"),
        ("`yes`", "yes"),
        ("- yes -", "yes"),
        ("# 炉", "炉"),
        ("---", ""),
        ("%", "%"),
        ("e-mail: a, b", "e-mail: a, b"),
        ("Straße", "strasse"),
        ("?!…", ""),
        ("", ""),
    ],
)
def test_normalised(text, plain):
    assert normalised(text) == plain == normalised(plain)


def test_exact_match_takes_any_answer_and_keeps_numbers_apart():
    found = exact_match(["Beijing.", "北京！", "5", "3.5"], [["北京", "beijing"], ["北京"], ["-5"], ["35"]])
    assert found == mean([1, 1, 0, 0])
    assert exact_match(["", "x"], [[""], []], ["a", "a"]) == mean([1, 0], ["a", "a"])


def test_distinct_n_by_hand():
    assert distinct_n(["a b a b", "a b"], 1) == 2 / 6 and distinct_n(["a b a b", "a b"], 2) == 2 / 4
    assert distinct_n(["炉火 炉火", "炉"], 1) == 2 / 5 and distinct_n(["炉火炉火", "火"], 2) == 2 / 3
    assert distinct_n(["a b"], 3) == distinct_n([], 1) == 0.0 and distinct_n(["one two three"], 3) == 1.0
