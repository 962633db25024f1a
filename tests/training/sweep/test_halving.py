"""Rungs within a time: they fit, they fill it, and each is worth its runs."""

import itertools

import pytest

from wenlu.training.sweep.halving import FEWEST_STEPS, Cost, Rung, Shape, ladder, numbers, plan, replan, seconds


def test_one_in_eta_goes_on_and_two_come_to_the_last_rung():
    assert numbers(27, 3) == [27, 9, 3, 2]
    assert numbers(9, 3) == [9, 3, 2] and numbers(8, 2) == [8, 4, 2]
    assert numbers(4, 3) == [4, 2] and numbers(3, 3) == [3, 2] and numbers(2, 3) == [2] and numbers(1, 3) == [1]


def test_each_rung_has_eta_times_the_steps():
    shape = Shape(3, 2, 10_000)
    assert ladder(9, 900, FEWEST_STEPS, shape, 3) == [Rung(9, 100, 2), Rung(3, 300, 2), Rung(2, 900, 3)]


def test_a_rung_that_would_repeat_the_one_before_is_skipped():
    shape = Shape(3, 2, 10_000)
    assert ladder(27, 100, 20, shape, 3) == [Rung(27, 20, 2), Rung(3, 33, 2), Rung(2, 100, 3)]
    assert ladder(27, 25, 20, shape, 3) == [Rung(27, 25, 3)]


@pytest.mark.parametrize("count", [2, 3, 5, 9, 64, 256])
@pytest.mark.parametrize(("eta", "seeds"), [(2, 1), (3, 2), (4, 5)])
@pytest.mark.parametrize("most", [20, 60, 1000, 10**7])
def test_the_longest_that_fits(count, eta, seeds, most):
    shape = Shape(eta, seeds, most)
    costs = [Cost(0.1, 0.01 * (1 + n % 3)) for n in range(count)]
    for left in (1.0, 30.0, 1000.0, 50_000.0):
        rungs = plan(costs, left, 20, shape)
        if rungs is None:
            continue
        assert seconds(rungs, costs) <= left and rungs[0].configurations == count
        assert all(a.steps < b.steps and a.configurations > b.configurations for a, b in itertools.pairwise(rungs))
        assert rungs[-1].steps <= most and rungs[0].steps >= 20
        assert [rung.seeds for rung in rungs[:-1]] == [seeds] * (len(rungs) - 1)
        if rungs[-1].steps < most:
            longer = ladder(count, rungs[-1].steps + 1, 20, shape, rungs[-1].seeds)
            assert seconds(longer, costs) > left


def test_nothing_fits_and_fewer_seeds_do():
    shape, costs = Shape(3, 2, 1000), [Cost(1.0, 1.0)] * 2
    assert plan(costs, 50.0, 20, shape) is None
    assert replan(costs, 50.0, 20, shape) == [Rung(2, 24, 1)]
    assert replan(costs, 40.0, 20, shape) is None
    assert replan(costs, 1e9, 1001, shape) is None, "no run is longer than the recipe says"


def test_one_seed_stays_one():
    assert Shape(3, 1, 10).seeds_on_last == 1
    assert Shape(3, 2, 10).seeds_on_last == 3
    assert Shape(3, 5, 10).seeds_on_last == 5
