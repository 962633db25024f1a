"""The metrics against reference tools on random cases, English and Chinese by turns: 100 each, 1,000 in the campaign.

sacreBLEU, seqeval, scikit-learn and scipy are the tools themselves. The logic of SQuAD's script (evaluate-v2.0.py) and
of CMRC's (cmrc2018_evaluate.py) is written anew below, as plainly as they do it; CMRC's word tokenizer is NLTK's, so
between Chinese characters only words are drawn on which any tokenizer agrees.
"""

import json
import random
import re
import string
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from scipy.stats import binomtest

from wenlu.metrics import text
from wenlu.metrics.calibration import Answers, brier, brier_of_choices, calibration_error
from wenlu.metrics.paired import mcnemar
from wenlu.metrics.scores import cmrc_score, confusion, entity_counts, f1, macro_f1, squad_score

ENGLISH = 'the a an The stove\'s fire, burns in (cold) house. 1,000 3.5% U.S. re-read "warm" — it! naïve THE'.split()
CHINESE = [*"炉火在屋里，。人们暖《》…：１", "NBA", "2008", "kg", " "]


def optional(module: str):
    """A reference tool, or a skip that says what is not there."""
    return pytest.importorskip(module, reason=f"{module.split('.')[0]} is not installed (extras dev and benchmarks)")


def sentences(draw: random.Random, chinese: bool, count: int) -> tuple[list[str], list[str]]:
    """Written texts and what was wanted, alike in most places."""
    words, space = (CHINESE[:15], "") if chinese else (ENGLISH, " ")
    wanted = [[draw.choice(words) for _ in range(draw.randint(1, 12))] for _ in range(count)]
    written = [[draw.choice(words) if draw.random() < 0.25 else word for word in row] for row in wanted]
    return [space.join(row[: draw.randint(1, 14)]) for row in written], [space.join(row) for row in wanted]


def bleu(cases: int):
    draw, tools = random.Random(0), [BLEU(tokenize=name) for name in ("13a", "zh")]
    for case in range(cases):
        written, wanted = sentences(draw, bool(case % 2), draw.randint(1, 6))
        tool = tools[text.is_chinese("".join(wanted))]
        yield text.bleu(written, wanted).value, tool.corpus_score(written, [wanted]).score


def chrf(cases: int):
    draw, tool = random.Random(1), CHRF()
    for case in range(cases):
        written, wanted = sentences(draw, bool(case % 2), draw.randint(1, 6))
        yield text.chrf(written, wanted).value, tool.corpus_score(written, [wanted]).score


def entity_f1(cases: int):
    tool = optional("seqeval.metrics")
    draw, tags = random.Random(2), ["O", *(f"{part}-{kind}" for part in "BI" for kind in ("PER", "地名", "X-Y"))]
    for _ in range(cases):
        gold = [draw.choices(tags, k=draw.randint(1, 12)) for _ in range(draw.randint(1, 4))]
        ours = [[draw.choice(tags) if draw.random() < 0.3 else tag for tag in row] for row in gold]
        sums = np.sum([entity_counts(*pair) for pair in zip(gold, ours)], axis=0)
        yield f1(*sums), tool.f1_score(gold, ours, zero_division=0)


def squad_reference(prediction: str, answers: list[str]) -> tuple[float, float]:
    """Small letters, no ASCII punctuation, no articles, single spaces; the best of the answers that leave anything."""

    def words(given: str) -> list[str]:
        plain = given.lower().translate(dict.fromkeys(map(ord, string.punctuation)))
        return re.sub(r"\b(?:the|an|a)\b", " ", plain).split()

    def overlap(right: list[str]) -> float:
        said = words(prediction)
        if not said or not right:
            return float(said == right)
        same = sum(min(said.count(word), right.count(word)) for word in set(said))
        precision, recall = same / len(said), same / len(right)
        return 2 * precision * recall / (precision + recall) if same else 0.0

    kept = [words(answer) for answer in answers if words(answer)] or [[]]
    return float(words(prediction) in kept), max(map(overlap, kept))


def squad(cases: int):
    draw, seen = random.Random(3), Counter()
    for case in range(cases):
        words = ENGLISH if case % 2 else [*ENGLISH, "炉火", "，", "《红楼梦》"]
        answers = [" ".join(draw.choices(words, k=draw.randint(0, 5))) for _ in range(draw.randint(0, 3))]
        prediction = draw.choice([*answers, ""]) if draw.random() < 0.5 else " ".join(draw.choices(words, k=3))
        found = squad_score(prediction, answers)
        yield from zip(found, squad_reference(prediction, answers))
        seen[found[0], 0 < found[1] < 1] += 1
    assert min(seen[1.0, False], seen[0.0, False], seen[0.0, True]) > cases / 20


CMRC_MARKS = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"


def cmrc_reference(prediction: str, answers: list[str]) -> tuple[float, float]:
    """Small letters, no marks of its list ("……" is one item there, which no character equals); the longest run."""

    def plain(given: str) -> str:
        return "".join(c for c in given.lower().strip() if c not in CMRC_MARKS)

    def units(given: str) -> list[str]:
        return re.findall("[\u4e00-\u9fa5]|[^\\s\u4e00-\u9fa5…]+|…", plain(given))

    def overlap(right: list[str]) -> float:
        said = units(prediction)
        runs = {tuple(said[a:b]) for a in range(len(said)) for b in range(a + 1, len(said) + 1)}
        common = [b - a for a in range(len(right)) for b in range(a + 1, len(right) + 1) if tuple(right[a:b]) in runs]
        if not common:
            return 0.0
        precision, recall = max(common) / len(said), max(common) / len(right)
        return 2 * precision * recall / (precision + recall)

    exact = any(plain(prediction) == plain(answer) for answer in answers)
    return float(exact), max(overlap(units(answer)) for answer in answers)


def cmrc(cases: int):
    draw, seen = random.Random(4), Counter()
    for case in range(cases):
        words = CHINESE if case % 2 else [*CHINESE, "stove ", "fire "]
        answers = ["".join(draw.choices(words, k=draw.randint(1, 7))) for _ in range(draw.randint(1, 3))]
        prediction = draw.choice(answers) + draw.choice(["", "。", "人"])
        if draw.random() < 0.5:
            prediction = "".join(draw.choices(words, k=draw.randint(0, 6)))
        found = cmrc_score(prediction, answers)
        yield from zip(found, cmrc_reference(prediction, answers))
        seen[found[0], 0 < found[1] < 1] += 1
    assert min(seen[1.0, False], seen[0.0, True]) > cases / 20


def accuracy_and_macro_f1(cases: int):
    tool, draw = optional("sklearn.metrics"), np.random.default_rng(5)
    for _ in range(cases):
        labels, count = int(draw.integers(2, 8)), int(draw.integers(1, 60))
        gold, ours = draw.integers(0, labels, (2, count))
        ours = np.where(draw.random(count) < 0.5, gold, ours)
        counts = confusion(gold, ours, labels)
        yield np.trace(counts) / count, tool.accuracy_score(gold, ours)
        yield macro_f1(counts), tool.f1_score(gold, ours, average="macro", zero_division=0)


def mcnemar_p(cases: int):
    draw = np.random.default_rng(6)
    for _ in range(cases):
        sides = (draw.random((2, int(draw.integers(1, 300)))) < draw.random((2, 1))).astype(float)
        gained, lost = int((sides[1] > sides[0]).sum()), int((sides[1] < sides[0]).sum())
        yield mcnemar(*sides).p, binomtest(gained, gained + lost).pvalue if gained + lost else 1.0


def calibration_errors(cases: int):
    tool, draw = optional("sklearn.calibration"), np.random.default_rng(7)
    for case in range(cases):
        count, bins = int(draw.integers(1, 100)), int(draw.integers(1, 20))
        confidence = np.round(draw.random(count), 2 if case % 2 else 16)
        given = Answers(confidence, draw.random(count) < confidence)
        way, theirs = (("width", "uniform"), ("mass", "quantile"))[case // 2 % 2]
        right, said = tool.calibration_curve(given.right, confidence, n_bins=bins, strategy=theirs)
        shares = np.linspace(0, 1, bins + 1)
        edges = np.percentile(confidence, 100 * shares) if way == "mass" else shares
        sizes = Counter(int((edges[1:-1] < one).sum()) for one in confidence)
        expected = sum(abs(a - b) * sizes[place] for a, b, place in zip(right, said, sorted(sizes))) / count
        yield calibration_error(given, bins=bins, equal=way, resamples=2).value, expected


def brier_scores(cases: int):
    tool, draw = optional("sklearn.metrics"), np.random.default_rng(8)
    for case in range(cases):
        if case % 2:
            rows, gold = draw.dirichlet(np.ones(4), 8), draw.integers(0, 4, 8)
            theirs = tool.brier_score_loss(gold, rows, labels=range(4), scale_by_half=False)
            yield brier_of_choices(rows, gold).value, theirs
        else:
            confidence = draw.random(8)
            given = Answers(confidence, draw.random(8) < confidence)
            yield brier(given).value, tool.brier_score_loss(given.right, confidence, labels=[0, 1], pos_label=1)


CHECKS = {
    "BLEU": ("sacrebleu", bleu),
    "chrF": ("sacrebleu", chrf),
    "F1 of entities": ("seqeval", entity_f1),
    "SQuAD's exact match and F1": ("", squad),
    "CMRC's exact match and F1": ("", cmrc),
    "accuracy and macro F1": ("scikit-learn", accuracy_and_macro_f1),
    "McNemar's p": ("scipy", mcnemar_p),
    "calibration error": ("scikit-learn", calibration_errors),
    "Brier score": ("scikit-learn", brier_scores),
}
"""Metric → the package that is its reference (none: logic written anew here), and pairs of ours and theirs."""


def largest_difference(check, cases: int) -> float:
    return max(abs(float(ours) - float(theirs)) for ours, theirs in check(cases))


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Intervals are not looked at here."""
    monkeypatch.setattr(text, "RESAMPLES", 1)
    monkeypatch.setattr("wenlu.metrics.intervals.ratio_interval", lambda *rows, seed: None)


@pytest.mark.parametrize("name", CHECKS)
def test_metrics_are_those_of_their_references(name):
    assert largest_difference(CHECKS[name][1], 100) < 1e-12


@pytest.mark.slow
def test_a_thousand_cases_of_each():
    """The campaign; what it found is kept in benchmarks/results/metrics.json."""
    found = {}
    for name, (package, check) in CHECKS.items():
        reference = f"{package} {version(package)}" if package else "its published logic, written anew"
        found[name] = {"cases": 1000, "reference": reference, "largest difference": largest_difference(check, 1000)}
    file = Path(__file__).parents[2] / "benchmarks" / "results" / "metrics.json"
    file.write_text(json.dumps({"results": found}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert max(row["largest difference"] for row in found.values()) < 1e-12
