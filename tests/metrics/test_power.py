"""Smallest effects: against sums written out, scipy's noncentral t, figures of the literature, and simulation."""

import numpy as np
import pytest
from scipy import stats

from wenlu.metrics.paired import sign_p
from wenlu.metrics.power import least_gains, mcnemar_power, smallest_mcnemar_effect, smallest_mean_effect


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_least_gains_are_the_fewest_that_the_test_calls_better(alpha):
    for differ, least in enumerate(least_gains(60, alpha)):
        assert least > differ or sign_p(least, differ - least) <= alpha
        assert least - 1 <= differ / 2 or sign_p(least - 1, differ - least + 1) > alpha


@pytest.mark.parametrize(
    ("count", "discordance", "effect"), [(12, 1.0, 0.5), (40, 0.3, 0.2), (90, 0.5, 0.1), (8, 0.0, 0.0)]
)
def test_the_power_is_the_sum_over_all_tables(count, discordance, effect):
    up, down = (discordance + effect) / 2, (discordance - effect) / 2
    total = 0.0
    for gained in range(count + 1):
        for lost in range(count + 1 - gained):
            if gained > lost and sign_p(gained, lost) <= 0.05:
                cells = [gained, lost, count - gained - lost]
                total += stats.multinomial.pmf(cells, count, [up, down, 1 - up - down])
    assert mcnemar_power(count, discordance, effect) == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize(("count", "discordance"), [(400, 0.48), (50, 0.2), (6, 1.0), (400, 0.0)])
def test_the_smallest_effect_has_the_power_and_less_has_not(count, discordance):
    effect = smallest_mcnemar_effect(count, discordance)
    assert mcnemar_power(count, max(discordance, effect), effect) == pytest.approx(0.8, abs=1e-3)
    less = 0.9 * effect
    assert mcnemar_power(count, max(discordance, less), less) < 0.8


def test_too_few_pairs_show_nothing():
    assert smallest_mcnemar_effect(5, 1.0) is None and smallest_mean_effect(1.0, 1) is None


def test_a_mean_as_the_noncentral_t_has_it():
    """d = 0.5 wants 34 pairs for a power of 80 % (Faul et al. 2007: 0.8078 there)."""
    for count in (2, 5, 34, 1000):
        effect = smallest_mean_effect(1.0, count)
        limit = stats.t.ppf(0.975, count - 1)
        assert stats.nct.sf(limit, count - 1, effect * np.sqrt(count)) == pytest.approx(0.8, abs=1e-6)
    assert smallest_mean_effect(1.0, 33) > 0.5 - 0.001 and smallest_mean_effect(1.0, 34) < 0.5
    assert smallest_mean_effect(3.0, 40) == pytest.approx(3 * smallest_mean_effect(1.0, 40))
    assert smallest_mean_effect(1.0, 40, power=0.9) > smallest_mean_effect(1.0, 40)


def test_a_mean_as_simulation_has_it():
    random = np.random.default_rng(0)
    effect = smallest_mean_effect(2.0, 25)
    found = stats.ttest_1samp(random.normal(effect, 2.0, (4000, 25)), 0.0, axis=1)
    assert np.mean((found.pvalue <= 0.05) & (found.statistic > 0)) == pytest.approx(0.8, abs=0.03)
