"""Learning-rate schedules at their borders."""

import itertools
import math

import pytest

from wenlu.training.recipe import ScheduleConfig
from wenlu.training.schedules import factor


def curve(steps: int, **settings) -> list[float]:
    return [factor(ScheduleConfig(**settings), step, steps) for step in range(steps)]


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 101])
@pytest.mark.parametrize("name", ["wsd", "cosine", "constant"])
@pytest.mark.parametrize(("warmup", "decay"), list(itertools.product((0.0, 0.1, 1.0), repeat=2)))
def test_bounds_hold_everywhere(name, steps, warmup, decay):
    values = curve(steps, name=name, warmup=warmup, decay=decay, floor=0.05)
    assert all(0 < value <= 1 for value in values)
    warm = round(warmup * steps)
    assert values[:warm] == [(step + 1) / warm for step in range(warm)]
    assert all(a >= b for a, b in itertools.pairwise(values[warm:]))
    assert max(values) == 1.0


def test_warm_up_rises_to_the_peak_and_not_from_zero():
    values = curve(100, name="constant", warmup=0.1)
    assert values[0] == 0.1 and values[8] == 0.9 and values[9:] == [1.0] * 91
    assert all(a < b for a, b in itertools.pairwise(values[:10]))


def test_wsd_stays_then_falls_in_a_line():
    values = curve(100, name="wsd", warmup=0.1, decay=0.2, floor=0.0)
    assert values[9:81] == [1.0] * 72
    assert values[81] == pytest.approx(19 / 20) and values[90] == pytest.approx(0.5)
    assert values[99] == pytest.approx(1 / 20)
    assert factor(ScheduleConfig("wsd", warmup=0.1, decay=0.2), 100, 100) == 0.0
    assert curve(100, name="wsd", warmup=0.1, decay=0.2, floor=0.5)[90] == pytest.approx(0.75)


def test_wsd_that_would_fall_while_it_warms_falls_afterwards():
    values = curve(10, name="wsd", warmup=0.5, decay=1.0)
    assert values == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_cosine_begins_at_the_peak_and_reaches_the_floor():
    config = ScheduleConfig("cosine", warmup=0.2, floor=0.1)
    assert factor(config, 20, 100) == 1.0
    assert factor(config, 60, 100) == pytest.approx(0.55)
    assert factor(config, 100, 100) == pytest.approx(0.1)
    assert factor(config, 40, 100) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))


def test_no_warm_up_begins_at_the_peak():
    for name in ("wsd", "cosine", "constant"):
        assert factor(ScheduleConfig(name, warmup=0.0, decay=0.1), 0, 50) == 1.0
