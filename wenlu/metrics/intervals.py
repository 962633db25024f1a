"""Intervals: how far a figure might have been from what was measured, had the text been another of its kind."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np

_CELLS = 1 << 22
"""Random indices held at once while resampling (32 MiB)."""
_KEPT = 1 << 20
"""Those of so few groups are kept: several figures of the same answers are resampled alike (8 MiB)."""


@dataclass(frozen=True)
class Interval:
    """Ends of a confidence interval, in the units of the figure it belongs to."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval, which is None where there is too little for one."""

    value: float
    interval: Interval | None
    signature: str = ""
    """How it was computed, in a reference tool's own words."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it: value, and where there are such, low, high and signature."""
        ends = asdict(self.interval) if self.interval else {}
        return {"value": self.value, **ends, **({"signature": self.signature} if self.signature else {})}

    @classmethod
    def from_dict(cls, noted: dict[str, Any]) -> "Estimate":
        """What `as_dict` gave."""
        interval = Interval(noted["low"], noted["high"]) if "low" in noted else None
        return cls(noted["value"], interval, noted.get("signature", ""))


def ratio(numerators: np.ndarray, denominators: np.ndarray) -> Estimate:
    """Σ numerators / Σ denominators, [blocks] each, with its interval; 0 where there is nothing below the line."""
    below = float(denominators.sum())
    return Estimate(float(numerators.sum()) / below if below else 0.0, ratio_interval(numerators, denominators))


def ratio_interval(
    numerators: np.ndarray, denominators: np.ndarray, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval | None:
    """Percentile bootstrap interval of Σ numerators / Σ denominators, such as nats per token.

    numerators, denominators: [blocks], the sums within each block (nats and tokens of it). Whole blocks are drawn
    with replacement, both sums together, so what depends on each other inside a block stays together: a block is a
    document, or a run of neighbouring tokens long beside the reach of their dependence (`blocks`).
    Deterministic for one seed. None where fewer than two blocks have anything below the line: one tells no spread.

    Sources: Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7 (1979), for resampling
    and percentiles; Carlstein (1986) and Künsch (1989), Annals of Statistics 14 and 17, for blocks of a series.
    """
    numerators, denominators = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    assert numerators.shape == denominators.shape and numerators.ndim == 1, "one sum above and one below for each block"
    assert 0 < level < 1 and (denominators >= 0).all()
    if np.count_nonzero(denominators) < 2:
        return None
    count = len(numerators)
    random = np.random.default_rng(seed)
    ratios = np.empty(resamples)
    rows = max(1, _CELLS // count)
    for start in range(0, resamples, rows):
        drawn = random.integers(0, count, (min(rows, resamples - start), count))
        above, below = numerators[drawn].sum(1), denominators[drawn].sum(1)
        ratios[start : start + rows] = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
    low, high = np.nanquantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def draws(groups: int, resamples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each of so many groups is drawn when as many are, with replacement: int64 [some resamples, groups], in
    parts that fit into memory, not to be written to. The same for one seed."""
    if groups * resamples <= _KEPT:
        yield _drawn(groups, resamples, seed)
        return
    random, rows = np.random.default_rng(seed), max(1, _CELLS // groups)
    for start in range(0, resamples, rows):
        yield random.multinomial(groups, np.full(groups, 1 / groups), size=min(rows, resamples - start))


@lru_cache(maxsize=1)
def _drawn(groups: int, resamples: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=resamples)
    found.flags.writeable = False
    return found


def blocks(lengths: np.ndarray, longest: int = 256, wanted: int = 50) -> np.ndarray:
    """Where the blocks of a corpus start: [blocks] offsets into its tokens, for `np.add.reduceat`.

    lengths: [documents], tokens of each, all positive. A block never crosses a document's border and has at most
    `longest` tokens, fewer where that is needed for about `wanted` blocks.
    """
    lengths = np.asarray(lengths, np.int64)
    size = int(np.clip(lengths.sum() // wanted, 1, longest))
    starts = np.cumsum(lengths) - lengths
    pieces = -(-lengths // size)
    inside = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    # Pieces of one document are of equal length, give or take a token, rather than many whole ones and a rest.
    return np.repeat(starts, pieces) + inside * np.repeat(lengths, pieces) // np.repeat(pieces, pieces)


def group_numbers(groups: Sequence[Hashable] | None, count: int) -> np.ndarray:
    """A number for each example's group, int64 [examples]: 0, 1, … in the order in which groups first occur.

    An empty name is no group: such an example stands alone, as all do where `groups` is None.
    """
    if groups is None:
        return np.arange(count)
    assert len(groups) == count, "one group for each example"
    found: dict[Hashable, int] = {}
    names = (("alone", place) if group == "" else ("group", group) for place, group in enumerate(groups))
    return np.array([found.setdefault(name, len(found)) for name in names], np.int64)


def by_group(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Sums of the examples of each group, [groups, ...], of values [examples, ...] and their groups' numbers."""
    sums = np.zeros((int(numbers.max()) + 1, *values.shape[1:]))
    np.add.at(sums, numbers, values)
    return sums


def right_or_wrong(values: np.ndarray) -> bool:
    """Whether all values are 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def wilson(right: int, count: int, *, level: float = 0.95) -> Interval:
    """Interval of a proportion of independent examples, right of count; `count` is positive.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
    """
    assert 0 <= right <= count and count > 0 and 0 < level < 1
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * float(np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)))
    return Interval(0.0 if right == 0 else max(0.0, middle - half), 1.0 if right == count else min(1.0, middle + half))


def mean(values: Sequence[float], groups: Sequence[Hashable] | None = None, *, seed: int = 0) -> Estimate:
    """The mean of a score over examples with its 95 % interval.

    values: [examples], finite; groups: the group of each, of which whole ones are drawn (`group_numbers`).
    Right or wrong without groups: Wilson's interval. All else: the bootstrap over groups (`ratio_interval`). Where
    right or wrong is the same in all groups, resampling would show no spread: then Wilson's over as many examples as
    there are groups. None for a single group.
    """
    found = np.asarray(values, np.float64)
    assert found.ndim == 1 and len(found) and np.isfinite(found).all(), "finite scores of at least one example"
    numbers = group_numbers(groups, len(found))
    count = int(numbers.max()) + 1
    if right_or_wrong(found):
        if count == len(found):
            return Estimate(float(found.mean()), wilson(int(found.sum()), count))
        if count > 1 and found.min() == found.max():
            return Estimate(float(found[0]), wilson(int(found[0]) * count, count))
    sums = by_group(np.stack([found, np.ones_like(found)], 1), numbers)
    return Estimate(float(found.mean()), ratio_interval(sums[:, 0], sums[:, 1], seed=seed))
