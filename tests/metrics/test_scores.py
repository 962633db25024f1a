"""Scores against the reference tools, and against what their scripts give for written-out cases."""

import random

import numpy as np
import pytest

from wenlu.metrics.scores import (
    cmrc_score,
    confusion,
    entities,
    entity_counts,
    f1,
    macro_f1,
    macro_f1_interval,
    squad_score,
)

TAGS = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("PER", "LOC", "X-Y"))]


def test_entities_by_hand():
    assert entities(["B-PER", "I-PER", "O", "B-LOC"]) == [("PER", 0, 1), ("LOC", 3, 3)]
    assert entities(["I-PER", "I-LOC", "B-LOC", "I-LOC"]) == [("PER", 0, 0), ("LOC", 1, 1), ("LOC", 2, 3)]
    assert entities(["S-A", "B-A", "E-A", "I-A"]) == [("A", 0, 0), ("A", 1, 2), ("A", 3, 3)]
    assert entities([]) == entities(["O", "O"]) == []
    assert entity_counts(["B-A", "I-A", "O"], ["B-A", "O", "B-A"]) == (0, 2, 1)


def test_entities_and_f1_are_seqevals():
    seqeval = pytest.importorskip("seqeval.metrics")
    from seqeval.metrics.sequence_labeling import get_entities

    chance = random.Random(0)
    for _ in range(300):
        pair = [[[chance.choice(TAGS) for _ in range(n)] for n in (7, 1, 4)] for _ in range(2)]
        assert all(entities(tags) == get_entities(tags) for tags in pair[0])
        sums = np.sum([entity_counts(gold, ours) for gold, ours in zip(*pair)], axis=0)
        assert f1(*sums) == pytest.approx(seqeval.f1_score(*pair, zero_division=0), abs=1e-15)


def test_macro_f1_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    for labels in (2, 5):
        gold, ours = random.integers(0, labels, (2, 60))
        ours = np.minimum(ours, labels - 2)
        expected = metrics.f1_score(gold, ours, average="macro", zero_division=0)
        assert macro_f1(confusion(gold, ours, labels)) == pytest.approx(expected)


def test_macro_f1_by_hand_and_its_interval():
    counts = confusion([0, 0, 1, 1, 1], [0, 1, 1, 1, 0], 3)
    assert counts.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert macro_f1(counts) == pytest.approx((2 / 4 + 4 / 6) / 2)
    found = macro_f1_interval(20 * counts)
    assert found.low < macro_f1(counts) < found.high and found == macro_f1_interval(20 * counts)


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "score"),
    [
        ("the Stove.", ["stove"], 1.0, 1.0),
        ("a big stove", ["the stove", "small stove"], 0.0, 2 / 3),
        ("a-b c", ["ab c"], 1.0, 1.0),
        ("house", ["stove"], 0.0, 0.0),
        ("", [], 1.0, 1.0),
        ("stove", [], 0.0, 0.0),
        ("The the", ["x"], 0.0, 0.0),
        ("x x y", ["x y y"], 0.0, 2 / 3),
    ],
)
def test_squad(prediction, answers, exact, score):
    assert squad_score(prediction, answers) == (exact, pytest.approx(score))


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "score"),
    [
        ("光荣和ω-force", ["光荣和ω-force"], 1.0, 1.0),
        ("光荣，和", ["光荣和。"], 1.0, 1.0),
        ("是光荣", ["光荣和"], 0.0, 2 / 3),
        ("1992年", ["1992年3月", "在1993年"], 0.0, 2 * 2 / (2 + 4)),
        ("甲乙丙丁", ["乙甲丁丙"], 0.0, 1 / 4),
        ("NBA 2008 杯", ["nba 2008 杯"], 1.0, 1.0),
        ("3.5g node.js 1,000", ["3.5g 1,000"], 0.0, 2 * 1 / (3 + 2)),
        ("甲", ["乙"], 0.0, 0.0),
        ("甲", [], 0.0, 0.0),
        ("", [], 1.0, 1.0),
    ],
)
def test_cmrc(prediction, answers, exact, score):
    assert cmrc_score(prediction, answers) == (exact, pytest.approx(score))
