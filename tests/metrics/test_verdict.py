"""Verdicts: each word where it belongs, never by too few examples, and false ones as rare as said."""

import json

import numpy as np
import pytest

from wenlu.base.errors import UserError
from wenlu.metrics.paired import mcnemar, paired_bootstrap, tango
from wenlu.metrics.permutation import flip_test
from wenlu.metrics.power import smallest_mcnemar_effect
from wenlu.metrics.verdict import verdict


def rows(gained: int, lost: int, count: int) -> tuple[list[float], list[float]]:
    """Right and wrong of two sides that part in so many pairs."""
    same = count - gained - lost
    return [0.0] * gained + [1.0] * lost + [1.0] * same, [1.0] * gained + [0.0] * lost + [1.0] * same


@pytest.mark.parametrize(
    ("gained", "lost", "delta", "word"),
    [
        (60, 20, 0.0, "better"),
        (20, 60, 0.0, "worse"),
        (30, 25, 0.0, "undecided"),
        (30, 25, 0.05, "no worse"),
        (20, 35, 0.05, "undecided"),
        (60, 20, 0.02, "better"),
        (0, 6, 0.05, "no worse"),
        (0, 6, 0.0, "worse"),
        (20, 60, 0.02, "worse"),
        (0, 0, 0.0, "undecided"),
        (0, 0, 0.02, "no worse"),
    ],
)
def test_words_of_four_hundred(gained, lost, delta, word):
    first, second = rows(gained, lost, 400)
    found = verdict(first, second, delta=delta)
    assert found.word == word and (found.gained, found.lost) == (gained, lost)
    assert found.p == mcnemar(first, second).p and found.difference.interval == tango(gained, lost, 400)
    assert found.smallest == smallest_mcnemar_effect(400, (gained + lost) / 400)


def test_three_examples_decide_nothing():
    for values in ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]):
        found = verdict([0.0, 0.0, 0.0], values, delta=0.02)
        assert found.word == "undecided" and found.smallest is None
    assert verdict([0.1, 0.2, 0.3], [0.5, 0.6, 0.8], delta=0.02).word == "undecided"


def test_equal_scores_are_no_worse_only_where_enough_groups_say_so():
    scores = list(np.random.default_rng(0).random(600))
    assert verdict(scores[:100], scores[:100], delta=0.02).word == "undecided"
    assert verdict(scores, scores, delta=0.02).word == "no worse"
    assert verdict(scores, scores, list(range(60)) * 10, delta=0.02).word == "undecided"
    assert verdict([100 * score for score in scores], [100 * score for score in scores], delta=0.02).word == "undecided"


def test_weights_make_it_the_difference_of_ratios_of_sums():
    random = np.random.default_rng(3)
    sizes, before = random.integers(1, 400, 60), random.random(60)
    after = before + 0.02 + 0.1 * random.standard_normal(60)
    found = verdict(before, after, weights=sizes)
    ratios = [(sizes * side).sum() / sizes.sum() for side in (before, after)]
    assert found.difference.value == pytest.approx(ratios[1] - ratios[0])
    assert found.difference.value != pytest.approx(float((after - before).mean()))
    assert found.p == flip_test(sizes * before, sizes * after)
    plain, twice = (verdict(before, after, weights=[weight] * 60) for weight in (1, 2))
    assert plain == verdict(before, after) and twice.difference == plain.difference
    assert (twice.p, twice.word) == (plain.p, plain.word) and twice.smallest == pytest.approx(plain.smallest)


def test_groups_and_fractions_are_tested_by_flips_over_groups():
    random = np.random.default_rng(1)
    first = random.random(60)
    second, groups = first + random.normal(0.05, 0.1, 60), [f"段{place // 5}" for place in range(60)]
    found = verdict(first, second, groups, delta=0.01)
    assert (found.examples, found.groups, found.test) == (60, 12, "sign flips of groups")
    assert found.p == flip_test(first, second, groups) and found.difference == paired_bootstrap(first, second, groups)
    assert verdict(first, second).test == "sign flips"
    right = (first > 0.5).astype(float)
    assert verdict(right, 1 - right, groups).test == "sign flips of groups"
    assert verdict(right, 1 - right, [""] * 60).test == "McNemar's exact test"


def test_doubled_examples_in_groups_are_no_evidence():
    """Each example five times, in a group: a verdict as if it were there once; taken apart, far too sure."""
    first, second = rows(12, 4, 40)
    once, groups = verdict(first, second), np.repeat(np.arange(40), 5)
    together = verdict(np.repeat(first, 5), np.repeat(second, 5), groups)
    apart = verdict(np.repeat(first, 5), np.repeat(second, 5))
    assert together.p == pytest.approx(once.p, abs=0.02) and apart.p < once.p / 100
    assert once.word == together.word == "undecided" and apart.word == "better"


def test_the_smallest_mean_difference_counts_groups():
    random = np.random.default_rng(2)
    first, second = random.random((2, 60))
    once = verdict(first, second)
    five = verdict(np.repeat(first, 5), np.repeat(second, 5), np.repeat(np.arange(60), 5))
    assert five.smallest == pytest.approx(once.smallest)


@pytest.mark.parametrize("kind", ["right and wrong", "fractions", "groups"])
def test_false_words_are_rare(kind):
    random, count, trials = np.random.default_rng(3), 120, 120
    words = []
    for trial in range(trials):
        groups = np.arange(count) // 4 if kind == "groups" else None
        liking = random.normal(0, 0.7, (2, 30))[:, groups] if kind == "groups" else 0
        sides = random.random((2, count)) < 1 / (1 + np.exp(-random.normal(0, 1.5, (1, count)) - liking))
        sides = sides * random.random((2, count)) if kind == "fractions" else sides.astype(float)
        words.append(verdict(*sides, groups, seed=trial).word)
    assert words.count("better") / trials <= 0.05 and words.count("worse") / trials <= 0.05


def test_no_worse_is_said_of_what_is_worse_by_delta_in_few_cases():
    random, said, trials = np.random.default_rng(4), 0, 400
    for _ in range(trials):
        draw = random.random(200)
        first, second = (draw < 0.80).astype(float), ((draw < 0.72) | (draw > 0.97)).astype(float)
        said += verdict(first, second, delta=0.05).word == "no worse"
    assert said / trials <= 0.05


def test_it_is_json_and_a_line():
    found = verdict(*rows(60, 20, 400), delta=0.02)
    noted = json.loads(json.dumps(found.as_dict()))
    assert noted["word"] == "better" and noted["difference"]["low"] > 0 and noted["test"] == "McNemar's exact test"
    told = str(found)
    assert told.startswith("better: +0.1 (95 %: +0.0") and "60 up and 20 down of 400; differences from" in told
    same = verdict([0.5] * 400, [0.5] * 400, list("ab") * 200, delta=0.5)
    assert "of 400 in 2 groups" in str(same) and "would show" not in str(same)
    assert str(verdict(*rows(0, 0, 400), delta=0.02)).startswith("no worse by more than 0.02: +0 (95 %: -0.0095")


@pytest.mark.parametrize(
    ("first", "second", "groups", "delta", "message"),
    [
        ([1, 0], [1], None, 0, r"same examples on both sides, not \[2, 1\]"),
        ([1, 0], [1, 1], ["a"], 0, r"not \[2, 2, 1\]"),
        ([], [], None, 0, "no examples to compare on"),
        ([1, float("nan")], [1, 1], None, 0, "1 of 2 examples have a score that is not finite"),
        ([1, 0], [1, 1], None, -0.1, "delta is the loss that does not matter, 0 or more, not -0.1"),
    ],
)
def test_what_cannot_be_compared_is_refused(first, second, groups, delta, message):
    with pytest.raises(UserError, match=message):
        verdict(first, second, groups, delta)
