"""Calibration: scikit-learn's figures, brute force, and intervals that cover what they say."""

import json
from itertools import pairwise, permutations

import numpy as np
import pytest

from wenlu.base.errors import UserError
from wenlu.metrics.calibration import (
    Answers,
    abstention,
    brier,
    brier_of_choices,
    calibration_error,
    risk_coverage,
)
from wenlu.metrics.intervals import mean


def answers(random: np.random.Generator, count: int, groups=None, ties: bool = False) -> Answers:
    """As a model gives them that is right a little less often than it says."""
    confidence = random.beta(4, 2, count)
    right = (random.random(count) < confidence**1.5).astype(float)
    return Answers(np.round(confidence, 1) if ties else confidence, right, groups)


def test_calibration_error_by_hand():
    given = Answers([0.95, 0.85, 0.9, 0.3, 0.5], [1, 0, 1, 0, 1])
    assert calibration_error(given, bins=2).value == pytest.approx((abs(1 - 0.8) + abs(2 - 2.7)) / 5)
    assert calibration_error(given, bins=1).value == pytest.approx(abs(3 - 3.5) / 5)
    assert calibration_error(Answers([0.0, 1.0], [0, 1])).value == 0.0


@pytest.mark.parametrize("equal", ["width", "mass"])
def test_calibration_error_is_made_of_scikit_learns_curve(equal):
    sklearn = pytest.importorskip("sklearn.calibration", reason="scikit-learn is of the benchmarks extra")
    random = np.random.default_rng(0)
    for case in range(40):
        given = answers(random, int(random.integers(2, 300)), ties=case % 2 == 0)
        bins = int(random.integers(1, 20))
        strategy = "uniform" if equal == "width" else "quantile"
        right, said = sklearn.calibration_curve(given.right, given.confidence, n_bins=bins, strategy=strategy)
        edges = np.linspace(0, 1, bins + 1)
        edges = edges if equal == "width" else np.percentile(given.confidence, edges * 100)
        sizes = np.bincount([sum(edge < one for edge in edges[1:-1]) for one in given.confidence], minlength=bins)
        expected = (np.abs(right - said) * sizes[sizes > 0]).sum() / len(given.right)
        assert calibration_error(given, bins=bins, equal=equal, resamples=3).value == pytest.approx(expected, abs=1e-12)


def test_the_interval_of_a_calibrated_model_reaches_zero_and_of_another_covers():
    random, hits, trials = np.random.default_rng(1), dict.fromkeys((0.0, 0.03, 0.1, 0.2), 0), 120
    for seed in range(trials):
        confidence = random.uniform(0.5, 1, 200)
        for gap in hits:
            given = Answers(confidence, random.random(200) < confidence - gap)
            found = calibration_error(given, bins=10, resamples=200, seed=seed)
            hits[gap] += found.interval.low <= gap <= found.interval.high
            assert found.interval.low <= found.value <= found.interval.high
    assert all(0.9 <= count / trials <= 0.99 for count in hits.values()), hits


def test_calibration_error_over_groups_is_less_sure():
    random = np.random.default_rng(8)
    confidence, groups = random.uniform(0.5, 1, 40), np.repeat(np.arange(40), 5)
    once = Answers(confidence, random.random(40) < confidence - 0.3)
    five = Answers(np.repeat(once.confidence, 5), np.repeat(once.right, 5), groups)
    assert calibration_error(five) == calibration_error(Answers(five.confidence, five.right, groups.tolist()))
    assert calibration_error(five).value == pytest.approx(calibration_error(once).value)
    assert calibration_error(five).interval.low == pytest.approx(calibration_error(once).interval.low)
    apart = calibration_error(Answers(five.confidence, five.right)).interval
    assert apart.high - apart.low < 0.7 * (calibration_error(once).interval.high - calibration_error(once).interval.low)


def test_brier_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is of the benchmarks extra")
    random = np.random.default_rng(2)
    for _ in range(20):
        given = answers(random, 50)
        assert brier(given).value == pytest.approx(metrics.brier_score_loss(given.right, given.confidence, pos_label=1))
        rows, gold = random.dirichlet(np.ones(4), 50), random.integers(0, 4, 50)
        theirs = metrics.brier_score_loss(gold, rows, labels=range(4), scale_by_half=False)
        assert brier_of_choices(rows, gold).value == pytest.approx(theirs)


def test_brier_by_hand_and_over_groups():
    groups = ["a", "a", "b", ""]
    given = Answers([0.5, 1.0, 0.75, 0.25], [1, 1, 0, 0], groups)
    assert brier(given) == mean([0.25, 0.0, 0.5625, 0.0625], groups)
    assert brier_of_choices([[0.5, 0.5], [1.0, 0.0]], [0, 1]).value == pytest.approx((0.5 + 2.0) / 2)


def test_the_curve_and_its_area_by_every_order_of_ties():
    confidence, right = [0.9, 0.9, 0.7, 0.7, 0.7, 0.2], [1, 0, 1, 0, 0, 1]
    found = risk_coverage(Answers(confidence, right))
    assert found.threshold.tolist() == [0.9, 0.7, 0.2]
    assert found.coverage.tolist() == pytest.approx([2 / 6, 5 / 6, 1.0])
    assert found.risk.tolist() == pytest.approx([1 / 2, 3 / 5, 1 / 2])
    areas = []
    for order in permutations(range(6)):
        if all(confidence[a] >= confidence[b] for a, b in pairwise(order)):
            wrong = np.cumsum([1 - right[place] for place in order])
            areas.append(float((wrong / np.arange(1, 7)).mean()))
    assert found.area.value == pytest.approx(np.mean(areas))


@pytest.mark.parametrize("ties", [False, True])
def test_a_resample_counts_as_if_its_examples_were_written_out(ties):
    random = np.random.default_rng(3)
    groups = random.integers(0, 12, 40)
    given = answers(random, 40, groups, ties)
    areas = []
    numbers = given.numbers
    for drawn in np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=200):
        rows = np.repeat(np.arange(40), drawn[numbers])
        areas.append(risk_coverage(Answers(given.confidence[rows], given.right[rows], ["one"] * len(rows))).area.value)
    found = risk_coverage(given, resamples=200, seed=0).area.interval
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])))


def test_resamples_counted_in_parts_are_the_same(monkeypatch):
    given = answers(np.random.default_rng(9), 40, ties=True)
    whole = risk_coverage(given, resamples=50), abstention(given, 0.2, resamples=50)
    monkeypatch.setattr("wenlu.metrics.calibration._AT_ONCE", 120)
    curve, chosen = risk_coverage(given, resamples=50), abstention(given, 0.2, resamples=50)
    assert chosen == whole[1] and curve.area.value == whole[0].area.value
    assert curve.area.interval.low == pytest.approx(whole[0].area.interval.low, abs=1e-15)
    assert np.array_equal(curve.low, whole[0].low) and np.array_equal(curve.high, whole[0].high)


def test_risks_lie_in_intervals_that_cover():
    random, hits, curves = np.random.default_rng(4), 0, 100
    for seed in range(curves):
        confidence = random.random(300)
        found = risk_coverage(Answers(confidence, random.random(300) < confidence), resamples=200, seed=seed)
        half = int(np.searchsorted(found.coverage, 0.5))
        hits += found.low[half] <= (1 - found.threshold[half]) / 2 <= found.high[half]
    assert 0.88 <= hits / curves <= 0.99
    assert (found.low <= found.risk + 1e-12).mean() > 0.9 and len(found.risk) <= 200 and found.coverage[-1] == 1.0


def brute_threshold(given: Answers, wanted: float) -> tuple[float | None, float]:
    """(threshold, coverage) by trying all of them."""
    best = (None, 0.0)
    for threshold in sorted(set(given.confidence.tolist()), reverse=True):
        taken = given.confidence >= threshold
        if 1 - given.right[taken].mean() <= wanted + 1e-12:
            best = (threshold, float(taken.mean()))
    return best


@pytest.mark.parametrize("wanted", [0.0, 0.1, 0.3, 0.9])
def test_the_threshold_is_the_one_that_answers_most(wanted):
    random = np.random.default_rng(5)
    for case in range(50):
        given = answers(random, 40, ties=case % 2 == 0)
        found = abstention(given, wanted, resamples=20)
        threshold, coverage = brute_threshold(given, wanted)
        assert (found.threshold.value if found.threshold else None) == threshold
        assert found.coverage.value == pytest.approx(coverage) and found.risk.value <= wanted + 1e-12


def test_resampled_thresholds_are_those_of_the_examples_written_out():
    random = np.random.default_rng(6)
    given = answers(random, 60, [f"g{place // 3}" for place in range(60)], ties=True)
    thresholds, coverages = [], []
    for drawn in np.random.default_rng(1).multinomial(20, np.full(20, 1 / 20), size=150):
        rows = np.repeat(np.arange(60), drawn[given.numbers])
        threshold, coverage = brute_threshold(Answers(given.confidence[rows], given.right[rows]), 0.2)
        thresholds.append(1.0 if threshold is None else threshold)
        coverages.append(coverage)
    found = abstention(given, 0.2, resamples=150, seed=1)
    ends = found.threshold.interval, found.coverage.interval
    for interval, rows in zip(ends, (thresholds, coverages)):
        assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(rows, [0.025, 0.975])))
    assert found.unreachable == pytest.approx(np.mean(np.array(coverages) == 0))


def test_where_no_threshold_keeps_the_risk():
    found = abstention(Answers(np.linspace(0.5, 0.99, 30), np.zeros(30)), 0.1)
    assert found.threshold is None and found.coverage.value == 0 and found.unreachable == 1.0
    assert json.loads(json.dumps(found.as_dict()))["coverage"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    kept = json.loads(json.dumps(abstention(answers(np.random.default_rng(0), 200), 0.3).as_dict()))
    assert kept["threshold"]["low"] <= kept["threshold"]["value"] <= kept["threshold"]["high"]


def test_the_risk_on_others_is_higher_than_on_those_it_was_chosen_on():
    random, inside, elsewhere, truth = np.random.default_rng(7), [], [], []
    for seed in range(60):
        confidence = random.random(120)
        found = abstention(Answers(confidence, random.random(120) < confidence), 0.2, resamples=100, seed=seed)
        if found.threshold:
            inside.append(found.risk.value)
            elsewhere.append((found.risk.interval.low, found.risk.interval.high))
            truth.append((1 - found.threshold.value) / 2)
    covered = np.mean([low <= risk <= high for (low, high), risk in zip(elsewhere, truth)])
    assert np.mean(inside) < np.mean(truth) and covered > 0.9


def test_one_group_has_no_intervals():
    given = Answers([0.9, 0.4], [1, 0], ["a", "a"])
    assert calibration_error(given).interval is brier(given).interval is risk_coverage(given).area.interval is None
    found = abstention(given, 0.1)
    assert found.threshold.interval is found.coverage.interval is None and risk_coverage(given).low is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Answers([0.5], [1, 0]), r"not shapes \(1,\) and \(2,\)"),
        (lambda: Answers([], []), "a confidence for each answer"),
        (lambda: Answers([1.5, float("nan"), 0.2], [1, 0, 1]), "2 of 3 confidences do not lie in 0 to 1"),
        (lambda: Answers([0.5], [0.3]), "right (1) or wrong (0)".replace("(", r"\(").replace(")", r"\)")),
        (lambda: brier_of_choices([[0.5, 0.6]], [0]), "which sum to 1"),
        (lambda: abstention(Answers([0.5], [1]), 1.0), "the wanted risk is a part of answers, from 0 to less than 1"),
    ],
)
def test_wrong_uses_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
