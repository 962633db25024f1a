"""Whether a model knows what it knows: calibration error, Brier score, risk by coverage, and when to abstain."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wenlu.base.errors import UserError
from wenlu.metrics.intervals import Estimate, Interval, by_group, group_numbers, mean

RESAMPLES = 2000
_QUANTILES = [0.025, 0.975]
_POINTS = 200

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
    for drawn in _draws(len(sums), resamples, seed):
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


def _draws(groups: int, resamples: int, seed: int):
    """How often each group is drawn, [some resamples, groups], in parts that fit into memory."""
    random = np.random.default_rng(seed)
    rows = max(1, (1 << 22) // groups)
    for start in range(0, resamples, rows):
        yield random.multinomial(groups, np.full(groups, 1 / groups), size=min(rows, resamples - start))


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
    value = curve.area(np.ones(len(answers.right)))
    if curve.groups < 2:
        return RiskCoverage(*points, None, None, curve.thresholds[shown], Estimate(value, None))
    areas, risks = [], []
    for weights in curve.resampled(resamples, seed):
        areas.append(curve.area(weights))
        risks.append(curve.risks(weights)[1][shown])
    low, high = _quantiles_known(np.array(risks))
    return RiskCoverage(*points, low, high, curve.thresholds[shown], Estimate(value, _percentiles(areas)))


def _quantiles_known(risks: np.ndarray) -> np.ndarray:
    """[2, thresholds] from [resamples, thresholds] with NaN where a resample answers nothing; never all of them."""
    known = np.sort(risks, axis=0)  # NaN comes last.
    counts = (~np.isnan(known)).sum(0)
    places = np.rint(np.outer(_QUANTILES, np.maximum(counts, 1) - 1)).astype(np.int64)
    return np.take_along_axis(known, places, axis=0)


class _Curve:
    """Answers from the surest on, of which resamples are weights: sorted once."""

    def __init__(self, answers: Answers):
        order = np.argsort(-answers.confidence, kind="stable")
        self.confidence, self.wrong = answers.confidence[order], 1 - answers.right[order]
        self.numbers = answers.numbers[order]
        self.groups = int(self.numbers.max()) + 1
        self.starts = np.flatnonzero(np.r_[True, np.diff(self.confidence) != 0])
        self.thresholds = self.confidence[self.starts]
        self.coverage, self.risk = self.risks(np.ones(len(order)))

    def resampled(self, resamples: int, seed: int):
        """Weights of the answers, [examples] for each resample."""
        for drawn in _draws(self.groups, resamples, seed):
            yield from (counts[self.numbers].astype(np.float64) for counts in drawn)

    def risks(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coverage and risk at each threshold; NaN where nothing is answered."""
        answered = np.cumsum(np.add.reduceat(weights, self.starts))
        wrong = np.cumsum(np.add.reduceat(weights * self.wrong, self.starts))
        risk = np.divide(wrong, answered, out=np.full(len(wrong), np.nan), where=answered > 0)
        return answered / answered[-1], risk

    def area(self, weights: np.ndarray) -> float:
        """Mean risk over 1, 2, … answers, those of one confidence each as wrong as they are on average."""
        sizes = np.add.reduceat(weights, self.starts).astype(np.int64)
        wrong = np.add.reduceat(weights * self.wrong, self.starts)
        each = np.repeat(np.divide(wrong, sizes, out=np.zeros(len(sizes)), where=sizes > 0), sizes)
        return float((np.cumsum(each) / np.arange(1, len(each) + 1)).mean())


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
    chosen = _chosen(curve.risk, wanted)
    if chosen is None:
        threshold, coverage, risk = 1.0, 0.0, 0.0
    else:
        threshold, coverage, risk = (float(row[chosen]) for row in (curve.thresholds, curve.coverage, curve.risk))
    if curve.groups < 2:
        found = (Estimate(threshold, None) if chosen is not None else None, Estimate(coverage, None))
        return Abstention(wanted, *found, Estimate(risk, None), float(chosen is None))
    thresholds, coverages, elsewhere = np.ones(resamples), np.zeros(resamples), []
    for place, weights in enumerate(curve.resampled(resamples, seed)):
        covered, risks = curve.risks(weights)
        best = _chosen(risks, wanted)
        if best is None:
            continue
        best = int(np.searchsorted(covered, covered[best]))  # those behind it were not drawn: no evidence for them
        thresholds[place], coverages[place] = curve.thresholds[best], covered[best]
        left_out = (weights == 0) & (curve.confidence >= curve.thresholds[best])
        if left_out.any():
            elsewhere.append(float(curve.wrong[left_out].mean()))
    return Abstention(
        wanted,
        Estimate(threshold, _percentiles(thresholds)) if chosen is not None else None,
        Estimate(coverage, _percentiles(coverages)),
        Estimate(risk, _percentiles(elsewhere) if len(elsewhere) > 1 else None),
        float((coverages == 0).mean()),
    )


def _chosen(risks: np.ndarray, wanted: float) -> int | None:
    """The number of the last threshold, of the largest coverage, that keeps the risk."""
    kept = np.flatnonzero(risks <= wanted + 1e-12)  # NaN keeps none
    return int(kept[-1]) if len(kept) else None
