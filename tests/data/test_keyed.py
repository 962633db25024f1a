"""Keyed random numbers: the same for the same key, and as good as random."""

import numpy as np
from scipy import stats

from wenlu.data.keyed import HELD_OUT, draws, keys


def some(seed: int = 1, count: int = 400, epoch: int = 0) -> np.ndarray:
    return keys(seed, np.arange(count), np.full(count, epoch))


def test_a_key_is_of_seed_sample_and_epoch_alone():
    whole = some()
    assert np.array_equal(whole[7:9], keys(1, np.array([7, 8]), np.zeros(2, dtype=np.int64)))
    every = np.concatenate([some(seed, epoch=epoch) for seed in (0, 1, 2**62) for epoch in (HELD_OUT, 0, 1, 2)])
    assert len(set(every.tolist())) == len(every)


def test_numbers_are_known():
    """A change of these figures would make runs that were begun before resume with other masks."""
    found = draws(keys(5, np.array([3]), np.array([2])), np.arange(3), 1)
    assert np.allclose(found, KNOWN, atol=0, rtol=1e-15), found.tolist()


def test_numbers_are_uniform_and_streams_independent():
    grid = np.arange(100)
    numbers = [draws(some()[:, None], grid, stream) for stream in (0, 1, 2)]
    for each in numbers:
        assert each.min() >= 0 and each.max() < 1
        assert stats.kstest(each.ravel(), "uniform").pvalue > 1e-3
    others = [numbers[1], numbers[2], np.roll(numbers[0], 1, 0), np.roll(numbers[0], 1, 1)]
    others += [draws(some(2)[:, None], grid, 0), draws(some(epoch=1)[:, None], grid, 0)]
    for other in others:
        assert abs(np.corrcoef(numbers[0].ravel(), other.ravel())[0, 1]) < 0.02


KNOWN = [0.48269087784443476, 0.7234463407908596, 0.7917046960158064]
