"""Tests by sign flips: one or many things against a baseline on the same examples, whatever their scores are like."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from wenlu.metrics.intervals import by_group, group_numbers

RESAMPLES = 10_000
_FEW = 13
"""Groups up to which all flips (8,192 at most) are gone through, rather than some drawn."""
_CELLS = 1 << 22
_EVEN = 1 - 1e-9
"""Statistics this near to each other are taken for equal: the same sum in another order rounds otherwise."""


@dataclass(frozen=True)
class Against:
    """What a comparison of one of many with the baseline came to."""

    difference: float
    """Mean over examples, its score less the baseline's."""
    p: float
    """Two-sided, as if it were the only one compared."""
    adjusted: float
    """Two-sided; of all that are called different by `adjusted` ≤ 0.05, one at least is called so wrongly in at most
    5 % of such comparisons."""


def flip_test(first: Sequence[float], second: Sequence[float], groups: Sequence[Hashable] | None = None) -> float:
    """Two-sided p of "no difference" between two rows of scores of the same examples, [examples] each.

    In each group the two sides may be swapped, all its examples together: sums of differences change sign. The p is
    exact for up to 13 groups; for more it counts flips drawn, the given one among them. With right and wrong and no
    groups it estimates `wenlu.metrics.paired.mcnemar`. Source: Fisher, "The Design of Experiments" (1935), section 21.
    """
    return many_against(first, [second], groups)[0].p


def many_against(
    baseline: Sequence[float],
    others: Sequence[Sequence[float]],
    groups: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Against]:
    """Each of many rows of scores [others, examples] against the baseline's [examples], by max-T with step-down.

    The statistic is |Σ D| / √Σ D² over the groups' sums of differences D. A flip turns a group's sign in all
    comparisons together, so that what they share (the baseline, the examples) stays shared: adjusted p-values lose
    less than Bonferroni's. For one comparison the test is exact where differences are symmetric about 0; for many, that
    they share the baseline is kept in their second moments, so the adjusted values are exact only in the limit.

    Sources: Westfall & Young, "Resampling-Based Multiple Testing" (1993), algorithm 4.1; Ge, Dudoit & Speed,
    "Resampling-based multiple testing for microarray data analysis", Test 12 (2003), for the form of it; Phipson &
    Smyth (2010) for counting the given flip.
    """
    differences = np.asarray(others, np.float64) - np.asarray(baseline, np.float64)
    assert differences.ndim == 2 and differences.size and np.isfinite(differences).all()
    sums = by_group(differences.T, group_numbers(groups, differences.shape[1]))
    norms = np.sqrt((sums**2).sum(0))
    scaled = np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0)
    given = np.abs(scaled.sum(0))
    order = np.argsort(-given, kind="stable")
    alone, among, flips = np.zeros(len(given)), np.zeros(len(given)), 0
    for signs in _flips(len(sums), resamples, seed):
        found = np.abs(signs @ scaled)
        alone += (found >= given * _EVEN).sum(0)
        # The greatest of a comparison's own statistic and all those behind it in the order.
        behind = np.maximum.accumulate(found[:, order][:, ::-1], axis=1)[:, ::-1]
        among += (behind >= given[order] * _EVEN).sum(0)
        flips += len(signs)
    adjusted = np.empty(len(given))
    adjusted[order] = np.maximum.accumulate(among / flips)
    means = differences.mean(1)
    return [Against(*map(float, row)) for row in zip(means, alone / flips, adjusted)]


def _flips(groups: int, resamples: int, seed: int):
    """Signs [flips, groups], in parts: all there are, or the given ones (all +1) and as many as wanted drawn."""
    if groups <= _FEW:
        numbers = np.arange(1 << groups)[:, None] >> np.arange(groups)
        yield 1.0 - 2.0 * (numbers & 1)
        return
    random = np.random.default_rng(seed)
    yield np.ones((1, groups))
    rows = max(1, _CELLS // groups)
    for start in range(0, resamples, rows):
        yield 1.0 - 2.0 * random.integers(0, 2, (min(rows, resamples - start), groups), dtype=np.int8)
