"""What a paired comparison comes to: better, worse, no worse than δ, or undecided; and what it could have shown."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from wenlu.base.errors import UserError
from wenlu.metrics.intervals import Estimate, by_group, group_numbers, right_or_wrong
from wenlu.metrics.paired import mcnemar, paired_bootstrap, tango
from wenlu.metrics.permutation import flip_test
from wenlu.metrics.power import smallest_mcnemar_effect, smallest_mean_effect

ALPHA = 0.05

Word = Literal["better", "no worse", "worse", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """The second of two things beside the first, on the same examples."""

    word: Word
    difference: Estimate
    """Mean of second - first, with its 95 % interval."""
    p: float
    """Two-sided, of no difference."""
    test: str
    delta: float
    """The loss that does not matter, in the units of the scores; 0: every one matters."""
    examples: int
    groups: int
    """As many as examples, where each stands alone."""
    gained: int
    """Examples on which the second has the higher score."""
    lost: int
    smallest: float | None
    """The smallest difference that so many examples would show with 80 % power, given how much these differ; None
    where no difference of a size would be shown, nothing differs that would tell, or several are compared."""
    adjusted: float | None = None
    """p adjusted for all the comparisons that this is one of, by which the word goes; None where it is the only one."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self) | {"difference": self.difference.as_dict()}

    def __str__(self) -> str:
        """In a line, for people."""
        word = f"no worse by more than {self.delta:g}" if self.word == "no worse" else self.word
        ends = self.difference.interval
        between = f" (95 %: {ends.low:+.4g} to {ends.high:+.4g})" if ends else ""
        apart = "" if self.groups == self.examples else f" in {self.groups:,} groups"
        shown = "" if self.smallest is None else f"; differences from {self.smallest:.2g} on would show"
        among = "" if self.adjusted is None else f" ({self.adjusted:.2g} adjusted for so many comparisons)"
        return (
            f"{word}: {self.difference.value:+.4g}{between}, p = {self.p:.2g} by {self.test}{among}, "
            f"{self.gained} up and {self.lost} down of {self.examples:,}{apart}{shown}"
        )


def verdict(
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    delta: float = 0.0,
    *,
    weights: Sequence[float] | None = None,
    adjusted: float | None = None,
    seed: int = 0,
) -> Verdict:
    """Judge the second row of scores beside the first, [examples] each of the same examples; more is better.

    - Right and wrong, each example by itself: McNemar's exact test, Tango's interval.
    - Anything else: sign flips and the bootstrap, both over whole groups. weights: [examples], what scores are divided
      by, such as bytes of a text; then the difference is that of the ratios of sums.

    *better* and *worse* need both p ≤ 0.05 and an interval on one side of 0; where this is one of several comparisons,
    also `adjusted` ≤ 0.05, the p that holds for all of them (`metrics.permutation.many_against`). *no worse* needs an
    interval above -delta; a loss that small does not matter, so it comes before *worse*. The bootstrap knows only kinds
    of groups that it saw, so there *no worse* also needs enough groups: what none of g has shown may still lie in
    1 - 0.025^(1/g) of all (Hanley & Lippman-Hand, "If Nothing Goes Wrong, Is Everything All Right?", JAMA 249, 1983),
    and cost as much as scores lie apart (1 for scores within 0 to 1, else the range seen). All else is *undecided*.

    Raises UserError for rows of unequal length, no examples, or scores that are not finite.
    """
    rows = [np.asarray(row, np.float64) for row in (first, second)]
    _check(rows, groups, delta)
    before, after = rows
    numbers = group_numbers(groups, len(before))
    count, together = len(before), int(numbers.max()) + 1
    gained, lost = int((after > before).sum()), int((after < before).sum())
    if weights is None and together == count and right_or_wrong(before) and right_or_wrong(after):
        difference = Estimate((gained - lost) / count, tango(gained, lost, count))
        p, test, hidden = mcnemar(before, after).p, "McNemar's exact test", 0.0
        smallest = smallest_mcnemar_effect(count, (gained + lost) / count)
    else:
        below = np.ones(count) if weights is None else np.asarray(weights, np.float64)
        difference = paired_bootstrap(before, after, groups, weights=below, seed=seed)
        p = flip_test(below * before, below * after, groups)
        test = "sign flips" + (" of groups" if together < count else "")
        hidden = (1 - (ALPHA / 2) ** (1 / together)) * _reach(np.stack(rows))
        spread = _spread(after - before, numbers, below)
        smallest = smallest_mean_effect(spread, together) if spread > 0 else None
    if adjusted is not None:  # One comparison alone would show it, which is not what decides.
        smallest = None
    word = _word(difference, p if adjusted is None else max(p, adjusted), delta, hidden)
    return Verdict(word, difference, p, test, delta, count, together, gained, lost, smallest, adjusted)


def _check(rows: Sequence[np.ndarray], groups: Sequence[Hashable] | None, delta: float) -> None:
    first, second = rows
    if first.ndim != 1 or first.shape != second.shape or (groups is not None and len(groups) != len(first)):
        lengths = [len(np.atleast_1d(row)) for row in rows] + ([len(groups)] if groups is not None else [])
        raise UserError(f"a comparison wants the same examples on both sides, not {lengths}: score both on all of them")
    if not len(first):
        raise UserError("there are no examples to compare on: give some that both sides were scored on")
    bad = int((~np.isfinite(np.stack(rows))).any(0).sum())
    if bad:
        raise UserError(f"{bad} of {len(first)} examples have a score that is not finite: leave them out on both sides")
    if not 0 <= delta < np.inf:
        raise UserError(f"delta is the loss that does not matter, 0 or more, not {delta}")


def _reach(scores: np.ndarray) -> float:
    """How much a change of one example may cost."""
    low, high = float(scores.min()), float(scores.max())
    return 1.0 if low >= 0 and high <= 1 else high - low


def _spread(differences: np.ndarray, numbers: np.ndarray, weights: np.ndarray) -> float:
    """Standard deviation of what each group adds to the mean difference, as if each were one example.

    That of the differences themselves where each stands alone and weighs the same.
    """
    sums = by_group(weights * (differences - np.average(differences, weights=weights)), numbers)
    if len(sums) < 2:
        return 0.0
    return float(np.sqrt((sums**2).sum() / (len(sums) - 1)) * len(sums) / weights.sum())


def _word(difference: Estimate, p: float, delta: float, hidden: float) -> Word:
    ends = difference.interval
    if ends is None:
        return "undecided"
    if p <= ALPHA and ends.low > 0:
        return "better"
    if min(ends.low, difference.value - hidden) > -delta and delta > 0:
        return "no worse"
    return "worse" if p <= ALPHA and ends.high < 0 else "undecided"
