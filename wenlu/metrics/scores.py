"""Scores of labels, entities and answers, equal to the reference tools: scikit-learn, seqeval, SQuAD's and CMRC's."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from wenlu.metrics.intervals import Interval

Entity = tuple[str, int, int]
"""Kind, first and last token."""


def f1(right: float, predicted: float, gold: float) -> float:
    """2 right / (predicted + gold), the harmonic mean of precision and recall; 0 where there is nothing."""
    return 2 * right / (predicted + gold) if predicted + gold else 0.0


def confusion(gold: Sequence[int], predicted: Sequence[int], labels: int) -> np.ndarray:
    """How often each label (row) was taken for each (column), int64 [labels, labels]."""
    pairs = np.asarray(gold, np.int64) * labels + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=labels * labels).reshape(labels, labels)


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Mean F1 of the labels that occur, of confusion matrices [..., labels, labels]; as scikit-learn's."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    both = counts.sum(-1) + counts.sum(-2)
    each = np.divide(2.0 * right, both, out=np.zeros(both.shape), where=both > 0)
    return each.sum(-1) / np.maximum(1, (both > 0).sum(-1))


def macro_f1_interval(counts: np.ndarray, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Percentile bootstrap over the rows that a confusion matrix counts."""
    total, labels = int(counts.sum()), len(counts)
    draws = np.random.default_rng(seed).multinomial(total, counts.ravel() / total, size=resamples)
    low, high = np.quantile(macro_f1(draws.reshape(-1, labels, labels)), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities that tags (B-, I-, E-, S-, O) spell out, as seqeval reads them by default.

    An entity ends where another kind or a new beginning comes; I- and E- after O, E- or S- begin one.
    """
    found, begun = [], 0
    for place, (before, now) in enumerate(pairwise(["O", *tags, "O"])):
        other_kind = _kind(before) != _kind(now)
        if before[0] in "ES" or (before[0] in "BI" and (now[0] in "BSO" or other_kind)):
            found.append((_kind(before), begun, place - 1))
        if now[0] in "BS" or (now[0] in "EI" and (before[0] in "ESO" or other_kind)):
            begun = place
    return found


def _kind(tag: str) -> str:
    return tag[1:].split("-", maxsplit=1)[-1] or "_"


def entity_counts(gold: Sequence[str], predicted: Sequence[str]) -> tuple[int, int, int]:
    """(right, predicted, gold) entities of one sentence; right are those of the same kind and place."""
    ours, theirs = set(entities(predicted)), set(entities(gold))
    return len(ours & theirs), len(ours), len(theirs)


def squad_score(prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1 of words) with the answer that fits best, as SQuAD's evaluation (Rajpurkar et al. 2016, 2018).

    Without answers the right prediction is the empty one.
    """
    answers = [answer for answer in answers if _plain(answer)] or [""]
    exact = max(float(_plain(prediction) == _plain(answer)) for answer in answers)
    return exact, max(_word_f1(_plain(prediction).split(), _plain(answer).split()) for answer in answers)


def _plain(text: str) -> str:
    """In small letters, without marks, articles and superfluous space."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def _word_f1(prediction: list[str], answer: list[str]) -> float:
    if not prediction or not answer:
        return float(prediction == answer)
    return f1((Counter(prediction) & Counter(answer)).total(), len(prediction), len(answer))


_MARKS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_HAN = re.compile("[\u4e00-\u9fa5]")
_WORD = re.compile(r"\w+(?:\.\w+|(?<=\d),(?=\d)\w+)*|[^\w\s]")


def cmrc_score(prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1 by the longest common run) with the answer that fits best, as CMRC 2018 (Cui et al. 2019).

    Chinese is compared character by character. Other words are told apart by a rule of our own where its script uses
    NLTK's `word_tokenize`, so F1 may differ for answers with Latin contractions, quotes, or dots at the ends of words.
    """
    if not answers:
        return float(not prediction), float(not prediction)
    exact = max(float(_without_marks(prediction) == _without_marks(answer)) for answer in answers)
    return exact, max(_run_f1(_units(prediction), _units(answer)) for answer in answers)


def _without_marks(text: str) -> str:
    return "".join(c for c in text.lower().strip() if c not in _MARKS)


def _units(text: str) -> list[str]:
    """Chinese characters, and the words between."""
    units, word = [], ""
    for character in _without_marks(text):
        if _HAN.match(character):
            units += [*_WORD.findall(word), character]
            word = ""
        else:
            word += character
    return units + _WORD.findall(word)


def _run_f1(prediction: list[str], answer: list[str]) -> float:
    longest, before = 0, [0] * (len(answer) + 1)
    for ours in prediction:
        now = [0]
        for place, theirs in enumerate(answer):
            now.append(before[place] + 1 if ours == theirs else 0)
        longest, before = max(longest, *now), now
    return f1(longest, len(prediction), len(answer))
