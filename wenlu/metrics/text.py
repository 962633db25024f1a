"""Scores of written texts against references: BLEU and chrF as sacreBLEU computes them, each with its signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wenlu.metrics.intervals import Estimate, Interval

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

RESAMPLES = 1000
CHINESE = 0.3
"""Part of the characters of texts from which on they are compared character by character."""


def is_chinese(text: str) -> bool:
    """Whether words in it are not told apart by spaces."""
    return sum("\u4e00" <= character <= "\u9fff" for character in text) > CHINESE * len(text)


def bleu(written: Sequence[str], references: Sequence[str]) -> Estimate:
    """BLEU (Papineni et al. 2002) of whole texts, 0 to 100, by sacreBLEU (Post 2018).

    Chinese references are cut into characters (its tokenizer zh), others into words (13a); the
    signature says all that another needs to compare with.
    """
    from sacrebleu.metrics import BLEU

    return _estimate(BLEU(tokenize="zh" if is_chinese("".join(references)) else "13a"), written, references)


def chrf(written: Sequence[str], references: Sequence[str]) -> Estimate:
    """chrF2 (Popović 2015), the F-score of character n-grams, 0 to 100, by sacreBLEU, with its interval."""
    from sacrebleu.metrics import CHRF

    return _estimate(CHRF(), written, references)


def _estimate(metric: Metric, written: Sequence[str], references: Sequence[str]) -> Estimate:
    """The score of the whole, and the interval of percentiles over resampled texts (Koehn 2004).

    sacreBLEU's own interval is made symmetric, and fails for chrF where a resample scores 0, so its sums of each text
    are resampled here.
    """
    assert len(written) == len(references) > 0, "one reference for each text"
    value = metric.corpus_score(list(written), [list(references)]).score
    signature = str(metric.get_signature())
    if len(written) < 2:
        return Estimate(value, None, signature)
    sums = np.asarray(metric._extract_corpus_statistics(list(written), [list(references)]), np.float64)
    random, scores = np.random.default_rng(0), np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        drawn = sums[random.integers(0, len(sums), len(sums))].sum(0)
        scores[number] = metric._compute_score_from_stats(list(drawn)).score
    low, high = np.quantile(scores, [0.025, 0.975])
    return Estimate(float(value), Interval(float(low), float(high)), signature)
