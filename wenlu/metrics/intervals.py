"""Intervals: how far a figure might have been from what was measured, had the text been another of its kind."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_CELLS = 1 << 22
"""Random indices held at once while resampling (32 MiB)."""


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
