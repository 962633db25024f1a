"""Two models on the same examples, whether they know what they know, and the page about it."""

from dataclasses import replace

import numpy as np
import pytest

from wenlu.base.errors import UserError
from wenlu.evaluation.candidate import Candidate
from wenlu.evaluation.compare import compare
from wenlu.evaluation.kinds import Choice, Texts, probabilities
from wenlu.evaluation.report import write
from wenlu.evaluation.run import run_task
from wenlu.evaluation.task import Settings, Task
from wenlu.evaluation.uncertainty import uncertainty
from wenlu.metrics.verdict import verdict
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Template

from small_models import BYTES, random_model

EXAMPLES = tuple(
    Example(str(n), {"asked": f"{n} <b>哪个</b>"}, ("yes", "no"), n % 2, group=str(n // 2)) for n in range(24)
)
TASK = Task("t", Choice(("yes", "no")), EXAMPLES, Template("{{ asked }}?"))


@pytest.fixture(scope="module")
def outcomes():
    models = {seed: Candidate(random_model("llama", seed=seed), BYTES, f"model-{seed}") for seed in (1, 2)}
    return [run_task(TASK, model) for model in models.values()]


def test_verdicts_are_those_of_the_pairs(outcomes):
    found = compare(*outcomes, delta=0.1)
    scores = [[row["scores"]["acc"] for row in outcome.rows] for outcome in outcomes]
    assert found.verdicts["acc"] == verdict(*scores, [example.group for example in EXAMPLES], 0.1)
    assert set(found.verdicts) == {"acc", "acc_norm", "acc_bytes"}
    assert len(found.changed) == sum(a != b for a, b in zip(*scores, strict=True))
    assert found.verdicts["acc"].groups == 12


def test_less_is_better_of_nats():
    rows = [{"id": "1", "scores": {"nats_per_token": value}, "tokens": 3} for value in (2.0, 1.0)]
    texts = Task("x", Texts(), (Example("1", {"text": "a"}),))
    base = run_task(TASK, Candidate(random_model("llama"), BYTES), Settings(limit=2))
    made = [replace(base, task=texts, rows=(row,), groups=("",)) for row in rows]
    assert compare(*made).verdicts["nats_per_token"].difference.value == 1.0


def test_texts_are_compared_as_their_figures_are_weighted_and_never_across_tokenizers():
    texts = Task("x", Texts(), tuple(Example(str(n), {"text": f"文 {n} " * (1 + 5 * n)}) for n in range(8)))
    pair = [run_task(texts, Candidate(random_model("llama", seed=seed), BYTES, f"{seed}")) for seed in (1, 2)]
    found = compare(*pair)
    assert list(found.verdicts) == ["bits_per_byte", "nats_per_token"] and found.notes == ()
    for name, one in found.verdicts.items():
        before, after = (outcome.figures[name].value for outcome in pair)
        assert one.difference.value == pytest.approx(before - after)
        assert one.difference.interval.low < one.difference.value < one.difference.interval.high
    other = compare(pair[0], replace(pair[1], tokenizer="another"))
    assert list(other.verdicts) == ["bits_per_byte"]
    assert other.notes == ("nats_per_token: not compared, for the models have different tokenizers",)
    lossy = [{**row, "scores": {"nats_per_token": 1.0}} for row in pair[1].rows[:1]]
    none = compare(pair[0], replace(pair[1], tokenizer="another", rows=(*lossy, *pair[1].rows[1:])))
    assert none.verdicts == {} and none.changed == () and "bits_per_byte: not compared, for not every" in none.notes[0]


def test_other_examples_are_not_compared(outcomes):
    other = run_task(TASK, Candidate(random_model("llama"), BYTES), Settings(limit=3))
    with pytest.raises(UserError, match="ask both the same"):
        compare(outcomes[0], other)


def test_probabilities_are_those_of_the_choices(outcomes):
    row = {"log_probabilities": [-1000.0, -1000.0 + np.log(3)]}
    assert probabilities(row) == pytest.approx([0.25, 0.75])
    rows = outcomes[0].rows
    found = uncertainty(rows, outcomes[0].groups, 0.3)
    sure = [probabilities(row).max() for row in rows]
    assert found.answers.confidence == pytest.approx(sure)
    gold = [sum((p - (n == row["gold"])) ** 2 for n, p in enumerate(probabilities(row))) for row in rows]
    assert found.brier.value == pytest.approx(np.mean(gold))
    names = [name for name, _ in found.rows()]
    assert names[:4] == ["calibration error", "Brier", "risk-coverage area", "coverage at risk 0.3"]


def test_macro_f1_is_that_of_both_classes(outcomes):
    rows = outcomes[0].rows
    each = []
    for label in (0, 1):
        right = sum(row["gold"] == row["found"] == label for row in rows)
        both = sum((row["gold"] == label) + (row["found"] == label) for row in rows)
        each.append(2 * right / both if both else 0.0)
    assert outcomes[0].figures["macro_f1"].value == pytest.approx(np.mean(each))


def test_the_page_holds_all_of_it(outcomes, tmp_path):
    write(tmp_path / "report.html", [[outcome] for outcome in outcomes], [compare(*outcomes)])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for words in (
        "model-1",
        "model-2",
        "model-2 beside model-1",
        "macro_f1",
        "calibration error",
        "right is &#x27;yes&#x27;",
    ):
        assert words in page
    assert page.count("<svg") == 5 and "<b>哪个" not in page and "&lt;b&gt;哪个" in page
    assert not any(words in page for words in ("<script", "<link", "src=", "@import"))
