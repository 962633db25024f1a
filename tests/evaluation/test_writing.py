"""Written answers: what is taken out of a text, and how it is judged."""

import pytest
from sacrebleu.metrics import BLEU, CHRF

from wenlu.base.errors import UserError
from wenlu.evaluation.writing import Writing
from wenlu.inference.stream import Result
from wenlu.metrics.scores import cmrc_score, squad_score
from wenlu.prompting.answers import Extractor
from wenlu.prompting.examples import Example


def written(text, finish="stop", beyond=False):
    return Result(text, (1, 2), finish, 3, beyond)


def judged(kind, text, *answers):
    return kind.outcome(Example("1", {}, answers=answers), written(text))


GSM8K = Writing("answer", Extractor("number"), Extractor("number", marked=True))


@pytest.mark.parametrize(
    ("text", "loose", "strict"),
    [
        (" 9 * 2 = 18 dollars.\n#### 18", 1, 1),
        (" So she makes $18.", 1, 0),
        (" #### 1,800", 0, 0),
        (" 16 - 3 = 13\n#### 13 or 18", 0, 0),
        (" nothing at all", 0, 0),
        (" 一共是十八元，答案是18。", 1, 1),
    ],
)
def test_numbers(text, loose, strict):
    row = judged(GSM8K, text, "Janet sells 9 eggs.\n#### 18")
    assert row["scores"] == {"exact_match": loose, "exact_match_strict": strict}


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (" Let's think. So the answer is (B).\n\nQ: more", 1),
        (" (B)", 1),
        (" (B)\nQ:", 1),
        (" b", 0),
        (" So the answer is (A). So the answer is (B).", 1),
        ("", 0),
    ],
)
def test_verbatim_answers(text, right):
    assert judged(Writing("verbatim", marker="answer is"), text, "(B)")["scores"] == {"exact_match": right}


def test_brackets_are_an_answer():
    kind = Writing("verbatim", marker="answer is")
    assert judged(kind, " So the answer is ] } >.", "] } >")["scores"]["exact_match"] == 1


@pytest.mark.parametrize("text", ["the Norman Conquest", "Conquest of 1066 ", "none"])
def test_spans_are_judged_as_the_scripts_do(text):
    answers = ("Norman conquest", "the conquest of 1066")
    scores = judged(Writing("span"), text, *answers)["scores"]
    assert (scores["exact_match"], scores["f1"]) == squad_score(text, answers)
    assert judged(Writing("f1"), text, *answers)["scores"] == {"f1": squad_score(text, answers)[1]}
    scores = judged(Writing("span", chinese=True), "光荣公司和", "光荣和ω-force")["scores"]
    assert (scores["exact_match"], scores["f1"]) == cmrc_score("光荣公司和", ("光荣和ω-force",))


def test_sets_and_what_occurs():
    assert judged(Writing("set"), " bear, beetle and", "beetle, bear")["scores"] == {"exact_set": 0}
    assert judged(Writing("set"), " bear, beetle", "beetle, bear")["scores"] == {"exact_set": 1}


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        (" a Process perhaps", "process", 1),
        ("Paris, France", "Paris", 1),
        ("in (Paris)", "Paris", 1),
        ("Parisian", "Paris", 0),
        ("café1", "café", 0),
        ("café", "caf", 0),
        ("答案是北京。", "北京", 1),
        ("答案是Paris。", "Paris", 1),
        ("答案是上海", "北京", 0),
        ("a U.S. president", "U.S.", 1),
        ("+ 1", "+", 1),
        ("anything", "?", 0),
    ],
)
def test_answers_that_occur_in_words_of_their_own(text, answer, right):
    assert judged(Writing("contains"), text, "never", answer)["scores"] == {"contains": right}


@pytest.mark.parametrize("texts", [("你好吗？", "天气好。"), ("A man sleeps .", "The dog runs away from it")])
def test_translations_are_judged_by_sacrebleu(texts):
    kind = Writing("translation")
    references = [text.replace("好", "很好").replace("man", "woman") for text in texts]
    rows = [judged(kind, f" {text}\n", right) for text, right in zip(texts, references, strict=True)]
    figures = kind.figures(rows, ["", ""])
    tokenize = "zh" if "好" in texts[0] else "13a"
    assert figures["bleu"].value == BLEU(tokenize=tokenize).corpus_score(list(texts), [references]).score
    assert figures["chrf"].value == CHRF().corpus_score(list(texts), [references]).score
    assert f"tok:{tokenize}" in figures["bleu"].signature
    assert rows[0]["scores"]["sentence_chrf"] == CHRF().sentence_score(texts[0], references[:1]).score


def test_translations_have_all_right_answers_as_references_and_whole_groups():
    kind, texts = Writing("translation"), ("A man sleeps on a bench", "The dog runs away from it")
    answers = (("A woman is sleeping there", "A man sleeps on the bench"), ("The dog ran away from it",))
    rows = [judged(kind, text, *right) for text, right in zip(texts, answers, strict=True)]
    streams = [[answers[0][0], answers[1][0]], [answers[0][1], None]]
    figures = kind.figures(rows, ["", ""])
    assert figures["bleu"].value == BLEU(tokenize="13a").corpus_score(list(texts), streams).score
    assert figures["chrf"].value == CHRF().corpus_score(list(texts), streams).score
    assert rows[0]["scores"]["sentence_chrf"] == CHRF().sentence_score(texts[0], list(answers[0])).score
    assert kind.figures(rows, ["a", "a"])["bleu"].interval is None and figures["bleu"].interval is not None


def test_texts_that_do_not_end_or_say_nothing_are_counted():
    kind = Writing(extractor=Extractor("number"), max_tokens=5)
    texts = [written("7"), written("none", "length", True), written("8", "context")]
    rows = [kind.outcome(Example("1", {}, answers=("7",)), text) for text in texts]
    assert kind.said(rows) == (
        "in 1 of 3 texts no answer was found; they count as wrong",
        "1 of 3 texts were cut at 5 tokens",
        "1 of 3 texts were ended: no positions left",
        "1 of 3 texts went on beyond the context that the model was trained on",
    )


def test_settings_out_of_range():
    with pytest.raises(UserError, match="max_tokens must be at least 1, not 0"):
        Writing(max_tokens=0)
