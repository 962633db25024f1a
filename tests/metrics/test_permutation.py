"""Sign flips: every one of them by hand, Bonferroni beaten where prompts are alike, and error rates kept."""

from itertools import product

import numpy as np
import pytest

from wenlu.metrics.paired import mcnemar
from wenlu.metrics.permutation import flip_test, many_against


def all_flips(sums: np.ndarray) -> np.ndarray:
    """|T| of every flip [flips, comparisons], of groups' sums of differences [groups, comparisons]."""
    norms = np.sqrt((sums**2).sum(0))
    return np.array([abs(np.array(signs) @ sums) / norms for signs in product((1, -1), repeat=len(sums))])


def stepped_down(sums: np.ndarray) -> np.ndarray:
    """Adjusted p-values by the definition: one comparison after another, from the greatest statistic on."""
    flips = all_flips(sums)
    given = flips[0]
    adjusted, most, left = np.zeros(len(given)), 0.0, list(np.argsort(-given, kind="stable"))
    while left:
        now = left[0]
        most = max(most, float((flips[:, left].max(1) >= given[now] - 1e-12).mean()))
        adjusted[now] = most
        left.pop(0)
    return adjusted


@pytest.mark.parametrize("seed", range(8))
def test_they_are_what_all_flips_say(seed):
    random = np.random.default_rng(seed)
    baseline = random.normal(size=9)
    others = baseline + random.normal(0.4, 1.0, (5, 9)) * random.choice([0.2, 1.0, 3.0], (5, 1))
    found = many_against(baseline, others)
    assert [one.adjusted for one in found] == pytest.approx(stepped_down((others - baseline).T))
    flips = all_flips((others - baseline).T)
    assert [one.p for one in found] == pytest.approx((flips >= flips[0] - 1e-12).mean(0))
    assert [one.difference for one in found] == pytest.approx((others - baseline).mean(1))
    assert all(one.adjusted >= one.p for one in found)


def test_whole_groups_are_flipped():
    random = np.random.default_rng(0)
    groups = ["a", "b", "a", "c", "c", "", "d", "b", "", "e"]
    first, second = random.normal(size=(2, 10))
    rows = {}
    for place, group in enumerate(groups):
        rows.setdefault(group or place, []).append(second[place] - first[place])
    flips = all_flips(np.array([[sum(row)] for row in rows.values()]))
    assert flip_test(first, second, groups) == pytest.approx(float((flips >= flips[0] - 1e-12).mean()))


def test_one_comparison_of_right_and_wrong_is_mcnemars():
    random = np.random.default_rng(1)
    for count, off in ((11, 1e-12), (60, 0.02)):
        first, second = (random.random((2, count)) < [[0.4], [0.7]]).astype(float)
        assert flip_test(first, second) == pytest.approx(mcnemar(first, second).p, abs=off)


def test_drawn_flips_estimate_all_of_them(monkeypatch):
    random = np.random.default_rng(2)
    baseline, others = random.normal(size=13), random.normal(0.3, 1, (4, 13))
    exact = many_against(baseline, others)
    monkeypatch.setattr("wenlu.metrics.permutation._FEW", 0)
    for one, drawn in zip(exact, many_against(baseline, others, seed=5)):
        assert drawn.p == pytest.approx(one.p, abs=0.02) and drawn.adjusted == pytest.approx(one.adjusted, abs=0.02)
    assert many_against(baseline, others, seed=5) == many_against(baseline, others, seed=5)


def test_many_flips_are_drawn_in_parts(monkeypatch):
    random = np.random.default_rng(3)
    baseline, others = random.normal(size=40), random.normal(0.3, 1, (3, 40))
    whole = many_against(baseline, others, resamples=999)
    monkeypatch.setattr("wenlu.metrics.permutation._CELLS", 4000)
    assert many_against(baseline, others, resamples=999) == whole


def test_what_does_not_differ_at_all_is_not_different():
    found = many_against([1.0, 0.0, 1.0] * 10, [[1.0, 0.0, 1.0] * 10, [1.0] * 30])
    assert found[0].p == found[0].adjusted == 1.0 and found[1].p < 0.01


def test_prompts_that_are_alike_cost_less_than_bonferroni():
    random = np.random.default_rng(4)
    baseline = random.normal(size=50)
    gain = random.normal(0.45, 1.0, 50)
    others = [baseline + gain + random.normal(0, 0.05, 50) for _ in range(20)]
    found = many_against(baseline, others)
    assert all(one.adjusted < 20 * one.p / 4 for one in found)


def test_false_finds_among_equal_prompts_are_as_rare_as_said():
    """Shared items, shared baseline, right and wrong: some prompt is called different in 5 % of comparisons."""
    random, some, single = np.random.default_rng(5), 0, 0
    for seed in range(300):
        chance = 1 / (1 + np.exp(-random.normal(0.5, 1.5, 80)))
        right = (random.random((13, 80)) < chance).astype(float)
        found = many_against(right[0], right[1:], resamples=400, seed=seed)
        some += min(one.adjusted for one in found) <= 0.05
        single += min(one.p for one in found) <= 0.05
    assert some / 300 <= 0.08 and single / 300 > 0.2
