"""Scores of choices: cases by hand, what each removes, and that none is chosen on the test."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenlu.base.config import from_dict, to_dict
from wenlu.base.errors import UserError
from wenlu.inference.score import Score
from wenlu.prompting.calibrate import (
    PMI,
    SCORES,
    Batch,
    Channel,
    Contextual,
    PerByte,
    PerToken,
    Prior,
    Reading,
    Scoring,
    Sum,
    chosen,
    reading,
)
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Template, as_chat

TEMPLATE = Template(question="评论：{{ text }}\n情感：", delimiter="")
FILM = Example("f", {"text": "好看"}, ("正面", "负面"), 0)
DULL = Example("d", {"text": "无聊"}, ("正面", "负面"), 1)


def score(*logs):
    return Score(logs, bytes=0, greedy=False)


def read(*rows, continuations=(" a", " bb")):
    """A reading whose asks have one token a choice."""
    return Reading(continuations, tuple(tuple(score(log) for log in row) for row in rows))


def close(found, expected):
    return [row == pytest.approx(other) for row, other in zip(found, expected, strict=True)] == [True] * len(expected)


def test_by_hand():
    long = Reading((" 是", " ab c"), ((score(-1.0, -2.0), score(-1.0, -1.0, -2.0)),))
    assert Sum().values([long]) == [(-3.0, -4.0)]
    assert close(PerToken().values([long]), [(-1.5, -4 / 3)])
    assert close(PerByte().values([long]), [(-3 / 3, -4 / 4)]), "bytes of the choice, not of the space before it"
    assert close(PMI().values([read((-1, -2), (-0.5, -3))]), [(-0.5, 1.0)])
    assert Channel().values([Reading((" a", " bb"), ((score(-5.0),), (score(-3.0, -1.0),)))]) == [(-5.0, -4.0)]


def test_contextual_by_hand():
    """p = (.8, .2); content-free (.6, .4) and (.9, .1): mean (.75, .25)."""
    rows = [tuple(map(math.log, row)) for row in ((0.4, 0.1), (0.3, 0.2), (0.9, 0.1))]
    found = Contextual(("N/A", "")).values([read(*rows)])
    assert close(found, [(math.log(0.8 / 0.75), math.log(0.2 / 0.25))])


def test_batch_by_hand():
    rows = [(0.8, 0.2), (0.5, 0.5)]
    readings = [read(tuple(map(math.log, row))) for row in rows]
    mean = [(math.log(0.8) + math.log(0.5)) / 2, (math.log(0.2) + math.log(0.5)) / 2]
    assert close(Batch().values(readings), [tuple(math.log(p) - m for p, m in zip(row, mean)) for row in rows])
    assert chosen(Batch().values(readings)) == [0, 1] and chosen(Sum().values(readings)) == [0, 0]


logs = st.lists(st.tuples(*[st.floats(-20, -0.01)] * 3), min_size=2, max_size=8)
biases = st.tuples(*[st.floats(-10, 10)] * 3)
ABC = ("a", "b", "c")


@given(logs, biases)
def test_batch_calibration_removes_a_bias_that_is_everywhere(rows, bias):
    plain = Batch().values([read(row, continuations=ABC) for row in rows])
    biased = [read(tuple(x + b for x, b in zip(row, bias)), continuations=ABC) for row in rows]
    for before, after in zip(plain, Batch().values(biased), strict=True):
        # Up to what all choices of one example share, which chooses nothing.
        shift = [a - b for a, b in zip(after, before)]
        assert shift == pytest.approx([shift[0]] * 3, abs=1e-9)


@given(logs, biases)
def test_contextual_calibration_removes_a_bias_that_is_in_the_content_free_too(rows, bias):
    both = [[tuple(x + b for x, b in zip(row, bias)), bias] for row in rows]
    found = Contextual(("",)).values([read(*asks, continuations=ABC) for asks in both])
    for value, row in zip(found, rows, strict=True):
        shift = [a - b for a, b in zip(value, row)]
        assert shift == pytest.approx([shift[0]] * 3, abs=1e-9)


@given(logs)
def test_what_changes_nothing(rows):
    plain = Sum().values([read(row, continuations=ABC) for row in rows])
    level = [read(row, (-2.0,) * 3, continuations=ABC) for row in rows]
    assert close([tuple(value - 2 for value in row) for row in PMI("x").values(level)], plain)
    for row, before in zip(Batch(0.0).values([read(row, continuations=ABC) for row in rows]), plain, strict=True):
        shift = [a - b for a, b in zip(row, before)]
        assert shift == pytest.approx([shift[0]] * 3, abs=1e-9)


@given(logs)
def test_a_kept_prior_makes_examples_independent_of_each_other(rows):
    readings = [read(row, continuations=ABC) for row in rows]
    prior = Batch().prior(readings)
    alone = [Batch().values([one], prior)[0] for one in readings]
    assert alone == Batch().values(readings)


def test_what_each_asks():
    prompt, texts = TEMPLATE.render(FILM, [DULL]), ("正面", "负面")
    for plain in (Sum(), PerToken(), PerByte(), Batch()):
        assert [(ask.prompt, ask.continuations) for ask in plain.asks(TEMPLATE, FILM, [DULL])] == [(prompt, texts)]
    assert [ask.prompt for ask in PMI("情感：").asks(TEMPLATE, FILM)] == [TEMPLATE.render(FILM), "情感："]
    chat = PMI("情感：").asks(as_chat(TEMPLATE), FILM)
    assert chat[1].prompt == ({"role": "user", "content": "情感："},)
    blank = Contextual(("无", "")).asks(TEMPLATE, FILM, [DULL])
    assert [ask.prompt.splitlines()[-2] for ask in blank] == ["评论：好看", "评论：无", "评论："]
    assert all(ask.prompt.startswith("评论：无聊\n情感：负面") for ask in blank), "demonstrations stay as they are"
    channel = Channel().asks(TEMPLATE, FILM)
    assert [ask.prompt for ask in channel] == ["正面", "负面"]
    assert {ask.continuations for ask in channel} == {("\n评论：好看\n情感：",)}
    assert reading(TEMPLATE, FILM, [[score(-1.0)]]).continuations == texts


def test_equal_values_choose_the_first():
    assert chosen([(1.0, 1.0), (0.0, 2.0, 2.0)]) == [0, 1]


@pytest.mark.parametrize("kind", [Sum(), PerToken(), PerByte(), PMI("答："), Contextual(("x",)), Batch(0.5), Channel()])
def test_written_down_and_read(kind):
    noted = json.loads(json.dumps(to_dict(Scoring.of(kind))))
    assert from_dict(Scoring, noted).score == kind and SCORES[kind.name] is type(kind)


FREE = Example("n", {"text": "x"}, answers=("y",))


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda: Scoring("pim"), "a score is one of sum, .*, not 'pim'. Did you mean 'pmi'"),
        (lambda: Scoring("sum", premise="x"), "the score sum has no premise: leave it out"),
        (lambda: PMI(""), "PMI needs a premise of the domain"),
        (lambda: Contextual(()), "contextual calibration needs content-free inputs"),
        (lambda: Batch(-1.0), "strength must be 0 .* or more, not -1.0"),
        (lambda: Batch().prior([]), "batch calibration needs examples to take its mean over"),
        (lambda: Batch().values([read((-1, -1)), read((-1, -1), continuations=("c", "d"))]), "needs the same choices"),
        (lambda: Sum().values([], Prior(("a",), (0.0,))), "the score sum takes no prior"),
        (lambda: Channel().asks(TEMPLATE, FREE), "example n has no choices"),
        (lambda: Channel().asks(as_chat(TEMPLATE), FILM), "leave out chat, or the noisy channel"),
    ],
)
def test_refused(act, message):
    with pytest.raises(UserError, match=message):
        act()
