"""The smallest effect that so many examples could show: what a comparison is able to find, and what it must miss."""

from __future__ import annotations

import math

import numpy as np

POWER = 0.8
"""Chance with which an effect is to be found, by custom (Cohen 1988)."""


def least_gains(count: int, alpha: float = 0.05) -> np.ndarray:
    """For 0 to `count` pairs that differ, the fewest gains which McNemar's exact test calls better, int64 [count + 1].

    One more than there are pairs, so never, where even all of them are too few.
    """
    from scipy.special import bdtrc

    differ = np.arange(count + 1)
    low, high = differ // 2 + 1, differ + 1
    while (low < high).any():
        middle = (low + high) // 2
        enough = 2 * bdtrc(middle - 1, differ, 0.5) <= alpha
        low, high = np.where(enough | (low == high), low, middle + 1), np.where(enough, middle, high)
    return low


def mcnemar_power(count: int, discordance: float, effect: float, *, alpha: float = 0.05) -> float:
    """Chance that McNemar's exact two-sided test of `count` independent pairs calls a better side better.

    discordance: part of the pairs that differ, 0 to 1; effect: the difference of the two accuracies, at most
    `discordance`. Summed over all numbers of pairs that may differ, without a normal approximation. Source: Duffy,
    "Asymptotic and Exact Power for the McNemar Test and Its Analogue with R Controls per Case", Biometrics 40 (1984).
    """
    return _mcnemar_power(least_gains(count, alpha), discordance, effect)


def _mcnemar_power(least: np.ndarray, discordance: float, effect: float) -> float:
    assert 0 <= effect <= discordance <= 1
    from scipy.special import bdtrc, gammaln, xlog1py, xlogy

    if not discordance:
        return 0.0
    count, differ = len(least) - 1, np.arange(len(least))
    ways = gammaln(count + 1) - gammaln(differ + 1) - gammaln(count - differ + 1)
    chances = np.exp(ways + xlogy(differ, discordance) + xlog1py(count - differ, -discordance))
    return float(chances @ bdtrc(least - 1, differ, (discordance + effect) / (2 * discordance)))


def smallest_mcnemar_effect(
    count: int, discordance: float, *, power: float = POWER, alpha: float = 0.05
) -> float | None:
    """The difference of two accuracies that `count` independent pairs would show with that power.

    discordance: part of the pairs that differ, as seen or expected; where the effect itself must be larger, so is the
    discordance. None where so few pairs show no effect at all (fewer than six, at 0.05).
    """
    from scipy.optimize import brentq

    least = least_gains(count, alpha)

    def lacking(effect: float) -> float:
        return _mcnemar_power(least, max(discordance, effect), effect) - power

    return float(brentq(lacking, 0.0, 1.0, xtol=1e-6)) if lacking(1.0) >= 0 else None


def smallest_mean_effect(spread: float, count: int, *, power: float = POWER, alpha: float = 0.05) -> float | None:
    """The difference of means that `count` independent differences would show with that power, in the scores' units.

    spread: standard deviation of the differences, positive. From the noncentral t distribution, as for the paired
    two-sided t test, better called better. None for fewer than two. Source: Cohen, "Statistical Power Analysis for the
    Behavioral Sciences" (1988), chapter 2.
    """
    assert spread > 0 and math.isfinite(spread)
    if count < 2:
        return None
    from scipy.optimize import brentq
    from scipy.special import nctdtr, stdtrit

    limit = float(stdtrit(count - 1, 1 - alpha / 2))
    most = 4.0
    while 1 - nctdtr(count - 1, most, limit) < power:
        most *= 2
    away = float(brentq(lambda shift: 1 - nctdtr(count - 1, shift, limit) - power, 0.0, most))
    return away * spread / math.sqrt(count)
