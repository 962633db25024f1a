"""The interval of a ratio: repeatable, of the right width, and covering what it says it covers."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import binomtest

from wenlu.metrics.intervals import Interval, blocks, by_group, draws, group_numbers, mean, ratio_interval, wilson


def _series(random, length, correlation=0.6):
    """An autoregressive series of mean 2, as losses of neighbouring tokens depend on each other."""
    noise = random.gamma(2.0, 1.0, length) - 2.0
    for i in range(1, length):
        noise[i] = correlation * noise[i - 1] + np.sqrt(1 - correlation**2) * noise[i]
    return 2.0 + noise


def test_same_seed_same_interval():
    random = np.random.default_rng(0)
    above, below = random.random(80), random.integers(1, 9, 80)
    first = ratio_interval(above, below, seed=3)
    assert first == ratio_interval(above, below, seed=3)
    assert first != ratio_interval(above, below, seed=4)
    assert first.low < above.sum() / below.sum() < first.high


def test_order_of_magnitude_is_the_standard_error():
    random = np.random.default_rng(1)
    above = random.normal(5.0, 2.0, 400)
    found = ratio_interval(above, np.ones(400))
    error = above.std(ddof=1) / np.sqrt(400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_covers_the_truth_of_correlated_tokens():
    random = np.random.default_rng(2)
    hits = naive = 0
    trials = 150
    for _ in range(trials):
        nats = _series(random, 2000)
        starts = blocks(np.array([2000]), wanted=50)
        sizes = np.diff(np.append(starts, 2000))
        found = ratio_interval(np.add.reduceat(nats, starts), sizes, resamples=400)
        hits += found.low <= 2.0 <= found.high
        single = ratio_interval(nats, np.ones(2000), resamples=100)
        naive += single.low <= 2.0 <= single.high
    assert 0.89 <= hits / trials <= 0.99
    assert naive / trials < 0.82, "resampling single tokens must be seen to claim too much"


def test_covers_the_truth_of_a_ratio_of_two_random_sums():
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        below = random.integers(1, 30, 120)
        above = below * random.normal(3.0, 1.0, 120)
        found = ratio_interval(above, below, resamples=400)
        hits += found.low <= 3.0 <= found.high
    assert 0.89 <= hits / 200 <= 0.99


def test_one_block_tells_no_spread():
    assert ratio_interval(np.array([4.0]), np.array([2.0])) is None
    assert ratio_interval(np.array([4.0, 0.0]), np.array([2.0, 0.0])) is None
    assert ratio_interval(np.array([4.0, 4.0]), np.array([2.0, 2.0])) == Interval(2.0, 2.0)


def test_many_blocks_are_resampled_in_parts(monkeypatch):
    above, below = np.arange(40.0), np.ones(40)
    whole = ratio_interval(above, below, resamples=300)
    monkeypatch.setattr("wenlu.metrics.intervals._CELLS", 1000)
    assert ratio_interval(above, below, resamples=300) == whole


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [256], [257], [10_000, 3, 700, 256], [5] * 1000])
def test_blocks_tile_the_corpus_within_documents(lengths):
    starts = blocks(np.array(lengths))
    total = sum(lengths)
    sizes = np.diff(np.append(starts, total))
    assert starts[0] == 0 and (sizes > 0).all() and sizes.max() <= 256
    assert set(np.cumsum(lengths)[:-1]) <= set(starts), "a document's border is a block's border"
    assert len(starts) >= min(50, total)


def test_draws_are_the_same_in_parts_and_when_they_are_kept(monkeypatch):
    (kept,) = draws(9, 40, 3)
    assert kept.shape == (40, 9) and (kept.sum(1) == 9).all() and next(draws(9, 40, 3)) is kept
    with pytest.raises(ValueError, match="read-only"):
        kept[0, 0] = 1
    assert not np.array_equal(next(draws(9, 40, 4)), kept)
    monkeypatch.setattr("wenlu.metrics.intervals._KEPT", 0)
    monkeypatch.setattr("wenlu.metrics.intervals._CELLS", 70)
    parts = list(draws(9, 40, 3))
    assert len(parts) == 6 and np.array_equal(np.concatenate(parts), kept)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilsons_interval_is_scipys(level):
    for count in (1, 2, 7, 400):
        for right in {0, 1, count // 3, count}:
            found = wilson(right, count, level=level)
            theirs = binomtest(right, count).proportion_ci(level, method="wilson")
            assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_an_accuracy_and_its_interval_need_no_scipy():
    code = "import sys; from wenlu.metrics.intervals import mean; mean([0, 1, 1]); assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_groups_are_numbered_and_the_nameless_stand_alone():
    assert group_numbers(["b", "", "a", "b", ""], 5).tolist() == [0, 1, 2, 0, 3]
    assert group_numbers([7, 7, 0], 3).tolist() == [0, 0, 1] and group_numbers(None, 3).tolist() == [0, 1, 2]
    sums = by_group(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([0, 1, 0]))
    assert sums.tolist() == [[6.0, 8.0], [3.0, 4.0]]


def test_a_mean_of_right_and_wrong_has_wilsons_interval():
    found = mean([1, 0, 1, 1])
    assert found.value == 0.75 and found.interval == wilson(3, 4) and mean([1, 0, 1, 1], [""] * 4) == found


def test_a_mean_over_groups_draws_whole_ones():
    values, groups = [0.25, 0.5, 0.75, 0.625, 0.5], ["a", "a", "b", "b", "c"]
    found = mean(values, groups)
    assert found.value == pytest.approx(0.525)
    assert found.interval == ratio_interval(np.array([0.75, 1.375, 0.5]), np.array([2, 2, 1]))
    assert mean(values, ["a"] * 5).interval is None and mean([1.0, 1.0], ["a", "a"]).interval is None


def test_groups_that_are_all_right_are_not_taken_for_certainty():
    assert mean([1.0] * 40, list("abcdefgh") * 5).interval == wilson(8, 8)
    assert mean([0.0] * 40, list("abcdefgh") * 5).interval == wilson(0, 8)


def test_a_clustered_interval_covers_and_a_plain_one_does_not():
    random, hits, plain, groups = np.random.default_rng(4), 0, 0, np.repeat(np.arange(60), 8)
    for _ in range(150):
        chance = random.beta(0.8, 0.8, 60)[groups]
        right = (random.random(480) < chance).astype(float)
        found, naive = mean(right, groups), mean(right)
        hits += found.interval.low <= 0.5 <= found.interval.high
        plain += naive.interval.low <= 0.5 <= naive.interval.high
    assert 0.89 <= hits / 150 <= 0.99 and plain / 150 < 0.8
