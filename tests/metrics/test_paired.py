"""Paired intervals and tests: against scipy's own, a search for the likeliest, and the truth they say they cover."""

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from wenlu.metrics.intervals import Interval
from wenlu.metrics.paired import mcnemar, paired_bootstrap, paired_interval, sign_p, student_interval, tango


@pytest.mark.parametrize("count", [2, 3, 8, 100])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_mean_as_scipy_has_it(count, level):
    values = np.random.default_rng(count).normal(3.0, 2.0, count)
    found = student_interval(values, level=level)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(level)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_difference_as_scipy_has_it(count):
    random = np.random.default_rng(count)
    shared = random.normal(3.0, 1.0, count)
    first, second = shared + random.normal(0.1, 0.02, count), shared + random.normal(0.0, 0.02, count)
    found = paired_interval(first, second)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    significant = stats.ttest_rel(first, second).pvalue < 0.05
    assert (found.low > 0 or found.high < 0) == significant


def test_one_value_tells_no_spread_and_equal_ones_tell_none():
    assert student_interval([2.0]) is None and student_interval([]) is None
    assert paired_interval([2.0], [1.0]) is None
    assert paired_interval([2.0, 3.0], [1.0, 2.0]) == Interval(1.0, 1.0)


def test_mcnemar_by_hand():
    found = mcnemar([1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 1, 1, 1, 1, 1, 0])
    assert (found.gained, found.lost) == (5, 1) and found.p == pytest.approx(2 * (1 + 6) / 64)
    assert mcnemar([1, 0], [1, 0]).p == sign_p(0, 0) == sign_p(3, 3) == 1.0


def test_mcnemar_is_the_sign_test_of_scipy():
    random = np.random.default_rng(0)
    for _ in range(1000):
        first, second = (random.random((2, int(random.integers(1, 200)))) < random.random((2, 1))).astype(float)
        found = mcnemar(first, second)
        gained, lost = int(((first == 0) & (second == 1)).sum()), int(((first == 1) & (second == 0)).sum())
        expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert (found.gained, found.lost) == (gained, lost) and found.p == pytest.approx(expected, rel=1e-12)


def _score(gained: int, lost: int, count: int, difference: float) -> float:
    """The statistic of Tango's interval, the likeliest rarer probability found by a search."""

    def unlikely(rare: float) -> float:
        cells = np.array([rare + difference, rare, 1 - 2 * rare - difference])
        seen = np.array([gained, lost, count - gained - lost])
        return -float((seen * np.log(np.maximum(cells, 1e-300))).sum())

    low, high = max(0.0, -difference), (1 - difference) / 2
    rare = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (gained - lost - count * difference) / np.sqrt(count * (2 * rare + difference * (1 - difference)))


@pytest.mark.parametrize("pairs", [(10, 2, 50), (30, 41, 200), (1, 0, 9), (4, 0, 12), (122, 66, 400)])
def test_tangos_ends_lie_two_standard_errors_off(pairs):
    found = tango(*pairs)
    assert _score(*pairs, found.low) == pytest.approx(1.959964, abs=2e-4)
    assert _score(*pairs, found.high) == pytest.approx(-1.959964, abs=2e-4)
    mirrored = tango(pairs[1], pairs[0], pairs[2])
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-9)


def test_tangos_interval_where_nothing_or_everything_differs():
    z2 = stats.norm.ppf(0.975) ** 2
    assert tango(0, 0, 3).high == pytest.approx(z2 / (3 + z2)) and tango(0, 0, 3).low == -tango(0, 0, 3).high
    assert tango(5, 0, 5).high == 1.0 and tango(0, 5, 5).low == -1.0 and tango(1, 0, 1).low < 0


def test_tangos_interval_covers_by_enumeration():
    """All tables of 30 pairs, weighed by their chance, for several truths: 95 % of them cover it, nearly."""
    count = 30
    tables = [(gained, lost) for gained in range(count + 1) for lost in range(count + 1 - gained)]
    ends = [tango(*table, count) for table in tables]
    for up, down in ((0.2, 0.2), (0.3, 0.1), (0.1, 0.02), (0.5, 0.3)):
        chances = stats.multinomial.pmf(
            [(*table, count - sum(table)) for table in tables], count, [up, down, 1 - up - down]
        )
        covered = np.array([one.low <= up - down <= one.high for one in ends])
        assert 0.93 <= float(chances[covered].sum()) <= 0.98


def test_a_paired_bootstrap_is_narrower_than_its_sides_and_covers():
    random, hits = np.random.default_rng(1), 0
    groups = np.repeat(np.arange(80), 5)
    for _ in range(150):
        shared = random.normal(0, 1, 80)[groups]
        gain = random.normal(0.1, 0.3, 80)[groups]
        first = shared + random.normal(0, 0.2, 400)
        found = paired_bootstrap(first, first + gain, groups)
        assert found.value == pytest.approx(gain.mean())
        hits += found.interval.low <= 0.1 <= found.interval.high
        assert found.interval.high - found.interval.low < 0.2
    assert 0.89 <= hits / 150 <= 0.99
    assert paired_bootstrap([1.0, 2.0], [2.0, 3.0], ["a", "a"]).interval is None
