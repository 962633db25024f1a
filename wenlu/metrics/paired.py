"""Paired comparisons: two things tried on the same seeds or examples, and how far their difference might lie off."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from wenlu.metrics.intervals import Estimate, Interval, by_group, group_numbers, ratio_interval, right_or_wrong


def student_interval(values: Sequence[float], *, level: float = 0.95) -> Interval | None:
    """Interval of the mean of independent values, by Student's t with one degree of freedom less than there are.

    None for fewer than two values: one tells no spread. Source: Student, "The Probable Error of a Mean", Biometrika 6
    (1908).
    """
    found = np.asarray(values, np.float64)
    assert found.ndim == 1 and 0 < level < 1 and np.isfinite(found).all()
    if len(found) < 2:
        return None
    from scipy.special import stdtrit

    half = float(stdtrit(len(found) - 1, (1 + level) / 2) * found.std(ddof=1) / np.sqrt(len(found)))
    return Interval(float(found.mean()) - half, float(found.mean()) + half)


def paired_interval(first: Sequence[float], second: Sequence[float], *, level: float = 0.95) -> Interval | None:
    """Interval of the mean of first - second, value by value: what pairs share (a seed, a text) drops out.

    The paired t test rejects "no difference" at 1 - level exactly where 0 lies outside. None for fewer than two pairs.
    """
    assert len(first) == len(second), "one value of each for every pair"
    return student_interval(np.asarray(first, np.float64) - np.asarray(second, np.float64), level=level)


@dataclass(frozen=True)
class McNemar:
    """Pairs of right and wrong that differ, and how likely such a split is where neither side is better."""

    gained: int
    """Right by the second only."""
    lost: int
    """Right by the first only."""
    p: float
    """Two-sided."""


def mcnemar(first: Sequence[float], second: Sequence[float]) -> McNemar:
    """McNemar's exact test of two rows of right (1) and wrong (0), [examples] each: a sign test of pairs that differ.

    Only for independent pairs; for groups of examples: `wenlu.metrics.permutation.flip_test`. Source: McNemar, "Note
    on the Sampling Error of the Difference Between Correlated Proportions or Percentages", Psychometrika 12 (1947).
    """
    before, after = np.asarray(first, np.float64), np.asarray(second, np.float64)
    assert before.shape == after.shape and right_or_wrong(before) and right_or_wrong(after)
    gained, lost = int((after > before).sum()), int((after < before).sum())
    return McNemar(gained, lost, sign_p(gained, lost))


def sign_p(gained: int, lost: int) -> float:
    """Two-sided p of the exact sign test: twice the smaller tail of a fair coin, 1 at most."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5))) if gained + lost else 1.0


def tango(gained: int, lost: int, count: int, *, level: float = 0.95) -> Interval:
    """Score interval of the difference of two accuracies on the same `count` independent examples: gained - lost of it.

    Holds where few pairs differ, or none, where resampling shows no spread. Source: Tango, "Equivalence test and
    confidence interval for the difference in proportions for the paired-sample design", Statistics in Medicine 17
    (1998).
    """
    assert gained >= 0 and lost >= 0 and gained + lost <= count and count > 0
    from scipy.optimize import brentq
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2))

    def score(difference: float) -> float:
        """How many standard errors the pairs lie above a true difference."""
        linear = (2 * count - gained + lost) * difference - gained - lost
        last = -lost * difference * (1 - difference)
        rare = (np.sqrt(max(0.0, linear**2 - 8 * count * last)) - linear) / (4 * count)
        spread = count * (2 * rare + difference * (1 - difference))
        return (gained - lost - count * difference) / np.sqrt(max(spread, 1e-300))

    value = (gained - lost) / count
    low = -1.0 if lost == count else float(brentq(lambda d: score(d) - z, -1 + 1e-12, value))
    high = 1.0 if gained == count else float(brentq(lambda d: score(d) + z, value, 1 - 1e-12))
    return Interval(low, high)


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    weights: Sequence[float] | None = None,
    seed: int = 0,
) -> Estimate:
    """Mean of second - first over the same examples, with its 95 % percentile interval; any score, [examples] each.

    weights: [examples], what a score is divided by, such as bytes; then it is that of the ratios of sums. Whole groups
    are drawn with replacement, both sides together (`wenlu.metrics.intervals.ratio_interval`); None instead of an
    interval for a single group. Sources: Efron (1979); Koehn, "Statistical Significance Tests for Machine Translation
    Evaluation", EMNLP 2004, for pairs.
    """
    differences = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    assert differences.ndim == 1 and len(differences) and np.isfinite(differences).all()
    below = np.ones_like(differences) if weights is None else np.asarray(weights, np.float64)
    sums = by_group(np.stack([below * differences, below], 1), group_numbers(groups, len(differences)))
    value = float(np.average(differences, weights=below))
    return Estimate(value, ratio_interval(sums[:, 0], sums[:, 1], seed=seed))
