"""Whether a model knows what it knows: calibration error, Brier score, risk by coverage, and when to abstain."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wenlu.base.errors import UserError
from wenlu.metrics.intervals import Estimate, Interval, by_group, draws, group_numbers, mean

RESAMPLES = 2000
_QUANTILES = [0.025, 0.975]
_POINTS = 200
_AT_ONCE = 1 << 18
"""Answers of all resamples that are counted together (2 MiB)."""

Groups = Sequence[Hashable] | None


@dataclass(frozen=True)
class Answers:
    """How sure a model was of its answers, and which were right: what all figures of this file are made of."""

    confidence: np.ndarray
    """[examples], the probability which it gave to the answer that it chose, 0 to 1."""
    right: np.ndarray
    """[examples], 1 or 0."""
    groups: Groups = None
    """Examples that depend on each other are drawn together (`wenlu.metrics.intervals.group_numbers`)."""

    def __post_init__(self):
        for name in ("confidence", "right"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        if self.confidence.ndim != 1 or self.confidence.shape != self.right.shape or not len(self.right):
            shapes = f"{self.confidence.shape} and {self.right.shape}"
            raise UserError(f"calibration wants a confidence for each answer, right or wrong, not shapes {shapes}")
        if not ((self.confidence >= 0) & (self.confidence <= 1)).all():
            bad = int((~((self.confidence >= 0) & (self.confidence <= 1))).sum())
            raise UserError(f"{bad} of {len(self.right)} confidences do not lie in 0 to 1: give probabilities")
        if not np.isin(self.right, (0.0, 1.0)).all():
            raise UserError("calibration wants answers that are right (1) or wrong (0), nothing between")
        assert self.groups is None or len(self.groups) == len(self.right), "one group for each answer"

    @property
    def numbers(self) -> np.ndarray:
        """The number of each answer's group."""
        return group_numbers(self.groups, len(self.right))


def calibration_error(
    answers: Answers,
    *,
    bins: int = 15,
    equal: Literal["width", "mass"] = "width",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Expected calibration error: |accuracy - mean confidence| of each bin of confidences, by its share of answers.

    Bins are equally wide, or bordered by quantiles so that about as many answers lie in each; a bin holds its upper
    border, the first one its lower too, as in scikit-learn's `calibration_curve`.

    The figure is too large for few answers, whose accuracies stray, and resampling makes it larger still. So only the
    upper end is the bootstrap's percentile; the lower one is reflected about the figure (the basic interval), and is 0
    where the figure is no larger than straying alone makes it: within the 97.5th percentile of the resampled gaps less
    the given ones. In simulations this covers the error of the bins in 90 to 98 of 100 cases (`tests/metrics`), the
    plain percentiles in none where the model is calibrated.

    Sources: Naeini, Cooper & Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015;
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; Nguyen & O'Connor, EMNLP 2015, for equal masses;
    Davison & Hinkley, "Bootstrap Methods and their Application" (1997), section 5.2, for the interval.
    """
    assert bins > 0
    numbers, places = answers.numbers, bin_numbers(answers.confidence, bins, equal)
    gaps = np.zeros((len(places), bins))
    gaps[np.arange(len(places)), places] = answers.right - answers.confidence
    sums = by_group(gaps, numbers)
    value = float(np.abs(gaps.sum(0)).sum() / len(places))
    if len(sums) < 2:
        return Estimate(value, None)
    sizes = np.bincount(numbers)
    found, strayed = [], []
    for drawn in draws(len(sums), resamples, seed):
        resampled = (drawn @ sums) / (drawn @ sizes)[:, None]
        found.append(np.abs(resampled).sum(1))
        strayed.append(np.abs(resampled - sums.sum(0) / len(places)).sum(1))
    high = max(value, float(np.quantile(np.concatenate(found), _QUANTILES[1])))
    calibrated = value <= float(np.quantile(np.concatenate(strayed), _QUANTILES[1]))
    return Estimate(value, Interval(0.0 if calibrated else max(0.0, 2 * value - high), high))


def bin_numbers(confidence: np.ndarray, bins: int, equal: Literal["width", "mass"]) -> np.ndarray:
    """The bin of each confidence, int64 [examples], from 0 on; some are empty where many confidences are the same."""
    shares = np.linspace(0, 1, bins + 1)
    edges = shares if equal == "width" else np.percentile(confidence, shares * 100)
    return np.searchsorted(edges[1:-1], confidence)


def _percentiles(rows: Sequence[float]) -> Interval:
    low, high = np.quantile(rows, _QUANTILES)
    return Interval(float(low), float(high))


def brier(answers: Answers) -> Estimate:
    """Mean of (confidence - right)², 0 to 1: the score of "is the answer right".

    Source: Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review 78 (1950).
    """
    return mean((answers.confidence - answers.right) ** 2, answers.groups)


def brier_of_choices(probabilities: np.ndarray, gold: Sequence[int], groups: Groups = None) -> Estimate:
    """Brier's own score of all choices, 0 to 2: mean over examples of Σ (probability - right)².

    probabilities: [examples, choices], rows that sum to 1; choices that an example lacks have 0. gold: [examples],
    number of the right one.
    """
    found = np.array(probabilities, np.float64)
    if found.ndim != 2 or len(found) != len(gold) or not np.allclose(found.sum(1), 1, atol=1e-6) or (found < 0).any():
        raise UserError("the Brier score wants a row of probabilities for each example, which sum to 1")
    found[np.arange(len(found)), np.asarray(gold, np.int64)] -= 1
    return mean((found**2).sum(1), groups)


@dataclass(frozen=True)
class RiskCoverage:
    """What part of answers is wrong, when only the surest part of questions is answered."""

    coverage: np.ndarray
    """[thresholds], part that is answered, rising to 1."""
    risk: np.ndarray
    """[thresholds], part of those that is wrong."""
    low: np.ndarray | None
    """[thresholds], lower ends of the risks' 95 % intervals, each by itself; None for a single group."""
    high: np.ndarray | None
    threshold: np.ndarray
    """[thresholds], least confidence that is answered, falling: those that occur, 200 of them at most."""
    area: Estimate
    """Mean risk over coverages 1/n to 1: small where errors are unsure."""


def risk_coverage(answers: Answers, *, resamples: int = RESAMPLES, seed: int = 0) -> RiskCoverage:
    """The risk–coverage curve and its area, with intervals by the bootstrap over groups.

    Answers of equal confidence come in together; the area counts them in any order, on average. Sources: El-Yaniv &
    Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 11 (2010); Geifman, Uziel & El-Yaniv,
    "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR 2019, for the area.
    """
    curve = _Curve(answers)
    shown = np.unique(np.rint(np.linspace(0, len(curve.thresholds) - 1, _POINTS)).astype(np.int64))
    points = curve.coverage[shown], curve.risk[shown]
    value = float(curve.areas(*curve.counted(np.ones((len(answers.right), 1))))[0])
    if curve.groups < 2:
        return RiskCoverage(*points, None, None, curve.thresholds[shown], Estimate(value, None))
    areas, risks = [], []
    for weights in curve.resampled(resamples, seed):
        counts = curve.counted(weights)
        areas.append(curve.areas(*counts))
        risks.append(curve.risks(*(count[shown] for count in counts)))
    low, high = _quantiles_known(np.concatenate(risks, 1))
    area = Estimate(value, _percentiles(np.concatenate(areas)))
    return RiskCoverage(*points, low, high, curve.thresholds[shown], area)


def _quantiles_known(risks: np.ndarray) -> np.ndarray:
    """[2, thresholds] from [thresholds, resamples] with NaN where a resample answers nothing; never all of them."""
    known = np.sort(risks, axis=1)  # NaN comes last.
    counts = (~np.isnan(known)).sum(1)
    places = np.rint(np.outer(np.maximum(counts, 1) - 1, _QUANTILES)).astype(np.int64)
    return np.take_along_axis(known, places, axis=1).T


class _Curve:
    """Answers from the surest on, of which resamples are weights: sorted once."""

    def __init__(self, answers: Answers):
        order = np.argsort(-answers.confidence, kind="stable")
        self.confidence, self.wrong = answers.confidence[order], 1 - answers.right[order]
        self.numbers = answers.numbers[order]
        self.groups = int(self.numbers.max()) + 1
        self.starts = np.flatnonzero(np.r_[True, np.diff(self.confidence) != 0])
        self.thresholds = self.confidence[self.starts]
        answered, wrong = self.counted(np.ones((len(order), 1)))
        self.coverage, self.risk = (answered / answered[-1])[:, 0], self.risks(answered, wrong)[:, 0]

    def resampled(self, resamples: int, seed: int) -> Iterator[np.ndarray]:
        """How often each answer is drawn, [examples, some resamples], in parts."""
        some = max(1, _AT_ONCE // len(self.numbers))
        for drawn in draws(self.groups, resamples, seed):
            for start in range(0, len(drawn), some):
                yield drawn[start : start + some].T[self.numbers].astype(np.float64)

    def counted(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Answers given and wrong ones at each threshold, [thresholds, resamples], of weights [examples, resamples]."""
        found = (np.add.reduceat(counts, self.starts) for counts in (weights, weights * self.wrong[:, None]))
        answered, wrong = (np.cumsum(counts, axis=0) for counts in found)
        return answered, wrong

    def risks(self, answered: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        """The part that is wrong; NaN where nothing is answered."""
        return np.divide(wrong, answered, out=np.full(wrong.shape, np.nan), where=answered > 0)

    def areas(self, answered: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        """Mean risk over 1, 2, … answers, [resamples], those of one confidence each as wrong as they are on average.

        Of s answers of one confidence, w of them wrong, behind n with v wrong: Σ (v + j w / s) / (n + j) over
        j = 1 … s, which is w + (v - n w / s) (H(n + s) - H(n)) with harmonic numbers H.
        """
        harmonic = np.cumsum(np.append(0.0, 1 / np.arange(1, answered[-1].max() + 1)))
        sizes, errors = (np.diff(counts, axis=0, prepend=0) for counts in (answered, wrong))
        each = np.divide(errors, sizes, out=np.zeros(sizes.shape), where=sizes > 0)
        before = answered - sizes
        reached = harmonic[answered.astype(np.int64)] - harmonic[before.astype(np.int64)]
        return (errors + (wrong - errors - before * each) * reached).sum(0) / answered[-1]


@dataclass(frozen=True)
class Abstention:
    """From which confidence on to answer, so that at most a wanted part of answers is wrong."""

    wanted: float
    threshold: Estimate | None
    """Answer from this confidence on. None where no threshold keeps the risk: then never answer."""
    coverage: Estimate
    """Part of questions that is answered; 0 without a threshold."""
    risk: Estimate
    """Part of the answers given that is wrong, here, on the answers which the threshold was chosen on; its interval is
    of the risk on others: thresholds chosen on resamples, tried on what those left out."""
    unreachable: float
    """Part of the resamples in which no threshold keeps the risk; in the intervals their threshold counts as 1 and
    their coverage as 0."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        known = {"threshold": self.threshold.as_dict()} if self.threshold else {}
        figures = {"coverage": self.coverage.as_dict(), "risk": self.risk.as_dict()}
        return {"wanted": self.wanted, **known, **figures, "unreachable": self.unreachable}


def abstention(answers: Answers, wanted: float, *, resamples: int = RESAMPLES, seed: int = 0) -> Abstention:
    """The threshold of largest coverage whose risk is `wanted` at most, and what it leaves, with 95 % intervals.

    Intervals are percentiles over resamples of whole groups, in each of which the threshold is chosen anew; None for a
    single group. The risk on the same answers is that wanted or less by choice, so no evidence for others: for those
    look at the risk's interval. Source: Geifman & El-Yaniv, "Selective Classification for Deep Neural Networks",
    NIPS 2017, for the question. Raises UserError for a wanted risk not in 0 to 1.
    """
    if not 0 <= wanted < 1:
        raise UserError(f"the wanted risk is a part of answers, from 0 to less than 1, not {wanted}")
    curve = _Curve(answers)
    last, kept = _chosen(curve.risk[:, None], wanted)
    threshold, coverage, risk = (float(row[last[0]]) for row in (curve.thresholds, curve.coverage, curve.risk))
    if not kept[0]:
        threshold, coverage, risk = 1.0, 0.0, 0.0
    if curve.groups < 2:
        found = (Estimate(threshold, None) if kept[0] else None, Estimate(coverage, None))
        return Abstention(wanted, *found, Estimate(risk, None), float(not kept[0]))
    resampled = [_on_others(curve, weights, wanted) for weights in curve.resampled(resamples, seed)]
    thresholds, coverages, elsewhere = (np.concatenate(rows) for rows in zip(*resampled, strict=True))
    return Abstention(
        wanted,
        Estimate(threshold, _percentiles(thresholds)) if kept[0] else None,
        Estimate(coverage, _percentiles(coverages)),
        Estimate(risk, _percentiles(elsewhere) if len(elsewhere) > 1 else None),
        float((coverages == 0).mean()),
    )


def _on_others(curve: _Curve, weights: np.ndarray, wanted: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds that resamples choose, [resamples], 1 where none keeps the risk; their coverages, 0 there; and the
    risks on what those resamples left out that have one and left some out that is answered."""
    answered, wrong = curve.counted(weights)
    last, kept = _chosen(curve.risks(answered, wrong), wanted)
    resample = np.arange(len(last))
    # Thresholds behind the first of that coverage were not drawn: no evidence for them.
    best = (answered >= answered[last, resample]).argmax(0)
    left_out, wrong_there = (counts[best, resample] for counts in curve.counted((weights == 0).astype(np.float64)))
    known = kept & (left_out > 0)
    thresholds = np.where(kept, curve.thresholds[best], 1.0)
    coverages = np.where(kept, answered[best, resample] / answered[-1], 0.0)
    return thresholds, coverages, wrong_there[known] / left_out[known]


def _chosen(risks: np.ndarray, wanted: float) -> tuple[np.ndarray, np.ndarray]:
    """Of risks [thresholds, resamples]: the number of the last threshold, of the largest coverage, that keeps the risk,
    and whether any does."""
    kept = risks <= wanted + 1e-12  # NaN keeps none
    return len(kept) - 1 - kept[::-1].argmax(0), kept.any(0)
