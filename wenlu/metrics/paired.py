"""Paired comparisons: two things tried on the same seeds, and how far their difference might lie from the one seen."""

from collections.abc import Sequence

import numpy as np

from wenlu.metrics.intervals import Interval


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
