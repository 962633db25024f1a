"""Scores of written texts: BLEU and chrF as sacreBLEU computes them, exact matches, and how varied texts are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

import numpy as np

from wenlu.metrics.intervals import Estimate, Interval, by_group, group_numbers, mean

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

RESAMPLES = 1000
CHINESE = 0.3
"""Part of the characters of texts from which on they are compared character by character."""


def is_chinese(text: str) -> bool:
    """Whether words in it are not told apart by spaces."""
    return sum("\u4e00" <= character <= "\u9fff" for character in text) > CHINESE * len(text)


References = Sequence[str] | Sequence[Sequence[str]]
"""Of each text one right translation, or several."""


def bleu(written: Sequence[str], references: References, groups: Sequence[Hashable] | None = None) -> Estimate:
    """BLEU (Papineni et al. 2002) of whole texts, 0 to 100, by sacreBLEU (Post 2018).

    Chinese references are cut into characters (its tokenizer zh), others into words (13a); the
    signature says all that another needs to compare with. groups: of each text, of which whole ones are resampled.
    """
    from sacrebleu.metrics import BLEU

    chinese = is_chinese("".join(chain.from_iterable(references)))
    return _estimate(BLEU(tokenize="zh" if chinese else "13a"), written, references, groups)


def chrf(written: Sequence[str], references: References, groups: Sequence[Hashable] | None = None) -> Estimate:
    """chrF2 (Popović 2015), the F-score of character n-grams, 0 to 100, by sacreBLEU, with its interval."""
    from sacrebleu.metrics import CHRF

    return _estimate(CHRF(), written, references, groups)


def _estimate(
    metric: Metric, written: Sequence[str], references: References, groups: Sequence[Hashable] | None
) -> Estimate:
    """The score of the whole, and the interval of percentiles over resampled texts (Koehn 2004), or groups of them.

    sacreBLEU's own interval is made symmetric, and fails for chrF where a resample scores 0, so its sums of each text
    are resampled here.
    """
    assert len(written) == len(references) > 0, "a reference for each text, or several"
    streams = list(map(list, zip_longest(*([row] if isinstance(row, str) else row for row in references))))
    value = metric.corpus_score(list(written), streams).score
    signature = str(metric.get_signature())
    sums = np.asarray(metric._extract_corpus_statistics(list(written), streams), np.float64)
    sums = by_group(sums, group_numbers(groups, len(sums)))
    if len(sums) < 2:
        return Estimate(value, None, signature)
    random, scores = np.random.default_rng(0), np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        drawn = sums[random.integers(0, len(sums), len(sums))].sum(0)
        scores[number] = metric._compute_score_from_stats(list(drawn)).score
    low, high = np.quantile(scores, [0.025, 0.975])
    return Estimate(float(value), Interval(float(low), float(high)), signature)


_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_BESIDE_HAN = re.compile(rf"(?<=[{_HAN}]) | (?=[{_HAN}])")
_BEFORE_PERCENT = re.compile(r"(?<=\d) (?=[%‰])")
_SIGNS = frozenset("%‰-#@&")
"""Punctuation to Unicode, but part of what an answer says where it touches it: 50%, -3, C#; symbols such as + $ € are
no punctuation."""


def normalised(text: str) -> str:
    """An answer without what does not count: in one width and case, without marks around it or superfluous space.

    Unicode's NFKC (full-width forms become plain ones) and case folding; the minus sign is a hyphen; marks and brackets
    at both ends go, those within stay (3.5, e-mail), as do signs (50%, -3, C++), but for those that stand apart, as of
    a list or heading (- yes), or of a line (---); spaces beside Chinese characters go, and before a per cent.
    """
    spaced = " ".join(unicodedata.normalize("NFKC", text).replace("−", "-").casefold().split())
    spaced = _BEFORE_PERCENT.sub("", spaced)
    first, last = 0, len(spaced)
    while first < last and _is_mark(spaced[first], spaced[first + 1 : last][:1]):
        first += 1
    while last > first and _is_mark(spaced[last - 1], spaced[first : last - 1][-1:]):
        last -= 1
    kept = _BESIDE_HAN.sub("", spaced[first:last])
    return "" if len(kept) > 1 and all(map(_is_punctuation, kept)) else kept


def _is_mark(character: str, beside: str) -> bool:
    """Whether it does not count at an end of a text; beside: the character after it, towards the middle."""
    return character in " `" or (_is_punctuation(character) and (character not in _SIGNS or beside == " "))


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] == "P"


def exact_match(
    written: Sequence[str], answers: Sequence[Sequence[str]], groups: Sequence[Hashable] | None = None
) -> Estimate:
    """Part of texts that are one of their right answers, both `normalised`, with its interval (`intervals.mean`).

    answers: some for each text; none at all can be right where there are none.
    """
    assert len(written) == len(answers) > 0, "a row of answers for each text"
    right = [float(normalised(text) in {normalised(answer) for answer in row}) for text, row in zip(written, answers)]
    return mean(right, groups)


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Different n-grams by all n-grams of the texts together, 0 to 1; 0 where no text has n units.

    Units are characters where the texts together are Chinese (`is_chinese`), else words between spaces. It falls as
    texts grow longer or more, so only sets of like size compare; and a resample, which repeats texts, is always less
    varied, so it has no interval by bootstrap. Source: Li et al., "A Diversity-Promoting Objective Function for Neural
    Conversation Models", NAACL 2016.
    """
    assert n > 0
    chinese = is_chinese("".join(texts))
    rows = [list("".join(text.split())) if chinese else text.split() for text in texts]
    grams = list(chain.from_iterable(zip(*(row[start:] for start in range(n))) for row in rows))
    return len(set(grams)) / len(grams) if grams else 0.0
