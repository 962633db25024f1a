"""Student's intervals against scipy's own tests."""

import numpy as np
import pytest
from scipy import stats

from wenlu.metrics.intervals import Interval
from wenlu.metrics.paired import paired_interval, student_interval


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
