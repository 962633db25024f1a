"""What prompts come to on examples: equal to scoring by hand, computed once, kept through kills."""

import json
from dataclasses import replace

import numpy as np
import pytest

from wenlu.base.errors import UserError
from wenlu.base.log import read_rows
from wenlu.inference.score import Query
from wenlu.prompting.answers import Extractor
from wenlu.prompting.artifact import Artifact, Decoding, Shown
from wenlu.prompting.backend import Failed, FolderBackend, Written
from wenlu.prompting.calibrate import Scoring
from wenlu.prompting.compare import FEWEST_FORMS, check, compare, forms_of, work
from wenlu.prompting.demonstrations import Demonstrations
from wenlu.prompting.examples import Example
from wenlu.prompting.matrix import Matrix
from wenlu.prompting.strategies import Direct, write_strategy
from wenlu.prompting.template import Template, as_chat
from wenlu.prompting.trial import bare, learned, softmax, try_on
from wenlu.prompting.writing import Form

from small_models import model_of

TEXTS = ("Two and two are four.", "The stove is warm.", "二加二等于四。", "炉子是热的。", "naïve café!", "天气真好。")
EXAMPLES = [Example(str(n), {"text": text}, ("four", "热的"), n % 2) for n, text in enumerate(TEXTS)]
TEMPLATE = Template(instruction="Say what fits.", question="Text: {{ text }}\nAnswer:")
PLAIN = Artifact(name="plain", template=TEMPLATE, scoring=Scoring("sum"))
CAREFUL = replace(PLAIN, name="careful", template=replace(TEMPLATE, instruction="Look closely. 看仔细。"))


class Counting(FolderBackend):
    """Counts what it is asked, and dies when told to."""

    asked, dies_at = 0, 1 << 60

    def score(self, queries, advance=None):
        self.asked += len(queries)
        if self.asked > self.dies_at:
            raise KeyboardInterrupt
        return super().score(queries, advance)


@pytest.fixture
def backend(model):
    return Counting(model)


def test_a_cell_is_what_scoring_by_hand_gives(backend):
    for example, cell in zip(EXAMPLES, try_on(PLAIN, backend, EXAMPLES), strict=True):
        prefix = f"Say what fits.\n\nText: {example.fields['text']}\nAnswer:"
        ((first, second),) = backend.score([Query(prefix, (" four", " 热的"))])
        values = first.log_probability, second.log_probability
        assert cell.answer == ("four", "热的")[int(values[1] > values[0])]
        assert cell.value == (cell.answer == example.right)
        assert cell.probabilities == pytest.approx(softmax(values), abs=1e-4) and cell.tokens == 0


def test_a_cell_does_not_depend_on_the_other_examples(backend):
    prompt, _ = learned(replace(PLAIN, scoring=Scoring("batch")), backend, EXAMPLES)
    together = try_on(prompt, backend, EXAMPLES)
    for example, cell in zip(EXAMPLES, together, strict=True):
        (alone,) = try_on(prompt, backend, [example])
        assert alone.value == cell.value
        assert alone.probabilities == pytest.approx(cell.probabilities, abs=1e-4)


def test_the_mean_of_a_batch_is_learned_from_questions_alone(backend):
    prompt = replace(PLAIN, scoring=Scoring("batch"))
    turned = [replace(example, gold=1 - example.gold) for example in EXAMPLES]
    assert learned(prompt, backend, EXAMPLES)[0].prior == learned(prompt, backend, turned)[0].prior
    with pytest.raises(UserError, match="the prompt plain is scored by batch calibration and keeps no mean: learn it"):
        try_on(prompt, backend, EXAMPLES)


def test_written_answers_are_extracted_and_counted(backend):
    prompt = replace(PLAIN, scoring=None, extractor=Extractor("choice"), decoding=Decoding(max_tokens=7))
    cells = try_on(prompt, backend, EXAMPLES)
    assert all(1 <= cell.tokens <= 7 and cell.probabilities == () for cell in cells)
    assert all(cell.value == 0 for cell in cells if cell.answer is None)


@pytest.mark.parametrize("kind", ["text", "choice", "last_line", "letter"])
def test_a_letter_that_is_written_is_compared_with_the_letter(kind, backend):
    template = Template(question="{{ text }}\n{{ options }}\nAnswer:", choices="letters", letters="甲乙")
    letters = {"letters": template.letters} if kind == "letter" else {}
    held = write_strategy(Direct(Form("choices")))
    prompt = Artifact(name="letters", template=template, strategy=held, extractor=Extractor(kind, **letters))
    cells = try_on(prompt, backend, EXAMPLES)
    assert [cell.value for cell in cells] == [cell.answer == "甲乙"[one.gold] for cell, one in zip(cells, EXAMPLES)]
    assert any(cell.value for cell in cells)


def test_forms_with_other_letters_look_for_these(backend):
    template = Template(question="{{ text }}\n{{ options }}\nAnswer:", choices="letters")
    prompt = Artifact(name="letters", template=template, extractor=Extractor("letter"))
    forms = [one for _, one in forms_of(prompt, EXAMPLES)]
    assert {"a", "1", "甲", "A"} == {one.extractor.letters[0] for one in forms}
    assert all(one.extractor.letters == one.template.letters for one in forms)


def test_nothing_is_computed_twice(backend, tmp_path):
    file = tmp_path / "matrix.jsonl"
    first = Matrix(file, backend).values([PLAIN, CAREFUL], EXAMPLES)
    asked = backend.asked
    again = Matrix(file, backend)
    assert (again.values([CAREFUL, PLAIN], EXAMPLES[::-1]) == first[::-1, ::-1]).all()
    assert backend.asked == asked and again.computed == 0 and again.found == 2 * len(EXAMPLES)
    renamed = replace(PLAIN, name="other name")
    assert again.key(renamed) == again.key(PLAIN) and bare(renamed) == bare(PLAIN)
    assert again.key(CAREFUL) != again.key(PLAIN)
    again.values([PLAIN], [replace(EXAMPLES[0], fields={"text": "else"})])
    assert backend.asked == asked + 1, "the same id with another content is another example"


def test_means_of_a_batch_are_learned_once_and_kept(backend, tmp_path):
    batch = [replace(one, scoring=Scoring("batch")) for one in (PLAIN, CAREFUL)]
    file = tmp_path / "matrix.jsonl"
    rows = compare(Matrix(file, backend), batch, EXAMPLES)
    assert backend.asked == 2 * len(EXAMPLES), "and a question that the mean is learned from is not asked again"
    by_hand = [learned(one, backend, EXAMPLES)[1] for one in batch]
    assert [row.accuracy.value for row in rows] == [np.mean([cell.value for cell in row]) for row in by_hand]
    compare(Matrix(file, backend), batch, EXAMPLES, forms=True)
    asked = backend.asked
    again = Matrix(file, backend)
    assert [row.verdict for row in compare(again, batch, EXAMPLES, forms=True)] == [row.verdict for row in rows]
    assert backend.asked == asked and again.computed == 0
    compare(Matrix(file, backend), batch[:1], EXAMPLES[:4])
    assert backend.asked == asked + 4, "of other examples there is another mean"


def test_what_was_computed_before_a_kill_is_kept(backend, tmp_path, monkeypatch):
    monkeypatch.setattr("wenlu.prompting.matrix.AT_ONCE", 2)
    backend.dies_at = 8
    with pytest.raises(KeyboardInterrupt):
        Matrix(tmp_path / "matrix.jsonl", backend).cells([PLAIN, CAREFUL], EXAMPLES)
    backend.dies_at = 1 << 60
    matrix, told = Matrix(tmp_path / "matrix.jsonl", backend), []
    assert matrix.found == 8
    values = matrix.values([PLAIN, CAREFUL], EXAMPLES, told.append)
    assert matrix.computed == 4 and sum(told) == 12
    assert (values == Matrix(tmp_path / "other.jsonl", backend).values([PLAIN, CAREFUL], EXAMPLES)).all()


def test_two_that_write_one_file_are_refused_and_lose_nothing(backend, tmp_path):
    file = tmp_path / "matrix.jsonl"
    first, second = Matrix(file, backend), Matrix(file, backend)
    with first.held():
        first.cells([PLAIN], EXAMPLES[:3])
        for act in (lambda: second.cells([PLAIN], EXAMPLES), lambda: compare(second, [PLAIN], EXAMPLES)):
            with pytest.raises(UserError, match=r"another process is writing .*matrix.jsonl: wait for it, or give"):
                act()
        first.cells([PLAIN], EXAMPLES)
    second.cells([CAREFUL], EXAMPLES)
    assert Matrix(file, backend).found == 2 * len(EXAMPLES)


def test_another_model_has_cells_of_its_own(backend, tmp_path):
    matrix = Matrix(tmp_path / "matrix.jsonl", backend)
    other = Matrix(tmp_path / "matrix.jsonl", Counting(model_of("char", seed=5)))
    assert matrix.key(PLAIN) != other.key(PLAIN)


def test_comparison_is_that_of_the_cells(backend, tmp_path):
    matrix = Matrix(tmp_path / "matrix.jsonl", backend)
    shown = replace(
        PLAIN, name="shown", demonstrations=Demonstrations("random", 1), pool=tuple(map(Shown.of, EXAMPLES))
    )
    rows = compare(matrix, [PLAIN, CAREFUL, shown], EXAMPLES, delta=0.1)
    values = matrix.values([PLAIN, CAREFUL, shown], EXAMPLES)
    assert [row.accuracy.value for row in rows] == pytest.approx(values.mean(1).tolist())
    assert rows[0].verdict is None and rows[0].adjusted is None
    for row, own in zip(rows[1:], values[1:], strict=True):
        assert row.verdict.difference.value == pytest.approx(own.mean() - values[0].mean())
        assert row.verdict.examples == len(EXAMPLES) and 0 < row.adjusted <= 1
        assert json.dumps(row.as_dict())


def test_comparisons_choose_demonstrations_by_the_same_vectors_to_learn_means_and_to_answer(backend, tmp_path):
    """With vectors that are alike where words are not: a mean learned from other demonstrations would be another."""

    def embed(texts):
        return [[1.0, float(len(text))] for text in texts]

    pool = tuple(map(Shown.of, EXAMPLES))
    for kind in ("nearest", "mmr"):
        prompt = replace(PLAIN, name=kind, scoring=Scoring("batch"), demonstrations=Demonstrations(kind, 1), pool=pool)
        matrix = Matrix(tmp_path / f"{kind}.jsonl", backend, embed)
        (row,) = compare(matrix, [prompt], EXAMPLES, forms=True)
        known, _ = learned(prompt, backend, EXAMPLES, embed)
        assert row.robustness.forms > FEWEST_FORMS and matrix.key(known) in {key for key, *_ in matrix._cells}


def test_robustness_is_over_ten_forms_and_more(backend, tmp_path):
    matrix, told = Matrix(tmp_path / "matrix.jsonl", backend), []
    (row,) = compare(matrix, [PLAIN], EXAMPLES, forms=True, advance=told.append)
    others = [prompt for _, prompt in forms_of(PLAIN, EXAMPLES)]
    means = [*matrix.values([PLAIN, *others], EXAMPLES).mean(1)]
    assert row.robustness.forms == len(means) > FEWEST_FORMS
    assert (row.robustness.worst, row.robustness.best) == pytest.approx((min(means), max(means)))
    assert row.robustness.median == pytest.approx(np.median(means))
    assert sum(told) == work([PLAIN], EXAMPLES, True) == len(means) * len(EXAMPLES)


def test_forms_that_a_stop_of_its_own_would_end_at_once_are_none():
    written = replace(PLAIN, scoring=None, decoding=Decoding(stop=("\n",)))
    forms = [one.template.delimiter for _, one in forms_of(written, EXAMPLES)]
    assert len(forms) >= FEWEST_FORMS and not any("\n" in delimiter for delimiter in forms)
    assert any("\n" in one.template.delimiter for _, one in forms_of(PLAIN, EXAMPLES))


WRITES = replace(PLAIN, name="writes", scoring=None, extractor=Extractor("choice"), decoding=Decoding(max_tokens=7))
MANY = [replace(EXAMPLES[n % 6], id=f"m{n}", fields={"text": f"炉子 {n}."}) for n in range(20)]


class Failing(Counting):
    """Answers nothing of what names one of these."""

    names, calls = (), 0

    def _fails(self, text):
        return any(name in str(text) for name in self.names)

    def generate(self, prompts, settings, advance=None):
        self.calls += len(prompts)
        found = super().generate(prompts, settings, advance)
        pairs = zip(prompts, found, strict=True)
        return [Written("", "error", None, None, error="said 400") if self._fails(p) else one for p, one in pairs]

    def score(self, queries, advance=None):
        pairs = zip(queries, super().score(queries, advance), strict=True)
        return [Failed("said 500") if self._fails(query.prefix) else one for query, one in pairs]


@pytest.mark.parametrize("prompt", [WRITES, PLAIN], ids=["written", "scored"])
def test_a_failure_is_no_answer_and_is_tried_again(prompt, model, tmp_path, capsys):
    file, backend = tmp_path / "matrix.jsonl", Failing(model)
    backend.names = ("炉子 3.",)
    matrix = Matrix(file, backend)
    (cells,) = matrix.cells([prompt], MANY)
    assert [number for number, cell in enumerate(cells) if cell.failed] == [3]
    assert np.isnan(matrix.values([prompt], MANY)[0, 3]) and matrix.computed == 19
    assert [row["failed"] for row in read_rows(file) if row.get("failed")] == [cells[3].failed]
    other = replace(prompt, name="careful", template=CAREFUL.template)
    rows = compare(matrix, [prompt, other], MANY)
    assert "1 of 20 examples failed with some prompt and are left out; the same command tries them" in (
        capsys.readouterr().err
    )
    assert [row.failed for row in rows] == [1, 1] and rows[1].verdict.examples == 19
    backend.names = ()
    again = Matrix(file, backend)
    (cells,) = again.cells([prompt], MANY)
    assert not any(cell.failed for cell in cells) and again.computed == 1
    assert again.tried == again.found + 2 + 1, "what failed was asked for as well"
    assert [row.failed for row in compare(again, [prompt, other], MANY)] == [0, 0]


def test_prompts_are_compared_on_what_all_have_answered(model, tmp_path):
    backend = Failing(model)
    backend.names = ("Say what fits.\n\nText: 炉子 3.", "Look closely. 看仔细。\n\nText: 炉子 5.")
    matrix = Matrix(tmp_path / "matrix.jsonl", backend)
    rows = compare(matrix, [PLAIN, CAREFUL], MANY)
    values = np.delete(matrix.values([PLAIN, CAREFUL], MANY), (3, 5), 1)
    assert [row.failed for row in rows] == [1, 1] and rows[1].verdict.examples == 18
    assert [row.accuracy.value for row in rows] == pytest.approx(values.mean(1).tolist())


def test_too_many_failures_are_no_comparison(model, tmp_path):
    backend = Failing(model)
    backend.names = ("炉子 3.", "炉子 5.", "炉子 7.")
    with pytest.raises(
        UserError, match=r"3 of 20 examples failed with some prompt, more than 10%, .* \(example m3: said"
    ):
        other = replace(WRITES, name="other", template=CAREFUL.template)
        compare(Matrix(tmp_path / "matrix.jsonl", backend), [WRITES, other], MANY)
    assert backend.calls == 20, "and the next prompt is not tried"

    class Down(Counting):
        def score(self, queries, advance=None):
            raise Failed("nobody there")

    with pytest.raises(UserError, match=r"6 of 6 examples failed .* nobody there"):
        Matrix(tmp_path / "other.jsonl", Down(model)).cells([PLAIN], EXAMPLES)


def test_a_prompt_that_always_says_the_same_is_told(model, tmp_path):
    held = replace(WRITES, name="held", strategy=write_strategy(Direct(Form("regex", "four"))))
    (row, free) = compare(Matrix(tmp_path / "m.jsonl", Counting(model)), [held, WRITES], EXAMPLES)
    assert row.always == "four" and free.always is None and row.as_dict()["always"] == "four"
    (row,) = compare(Matrix(tmp_path / "m.jsonl", Counting(model)), [held], EXAMPLES[::2])
    assert row.always is None, "where it is always right there is nothing to tell apart"


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "a comparison wants at least one prompt and one example"),
        ([PLAIN, replace(CAREFUL, name="plain")], "two prompts have the name 'plain'"),
        ([PLAIN, replace(PLAIN, name="twin")], "the prompts 'plain' and 'twin' are the same"),
        ([replace(PLAIN, template=Template(question="{{ gone }}"))], "'gone'"),
    ],
)
def test_refused_comparisons(prompts, message, backend, tmp_path):
    with pytest.raises(UserError, match=message):
        check(prompts, EXAMPLES)
    with pytest.raises(UserError, match=message):
        compare(Matrix(tmp_path / "matrix.jsonl", backend), prompts, EXAMPLES)


def test_other_refusals(backend, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"a": 1}\n')
    with pytest.raises(UserError, match="is no matrix of prompts and examples: give another file"):
        Matrix(bad, backend)
    with pytest.raises(UserError, match="two examples have the id '0'"):
        Matrix(tmp_path / "m.jsonl", backend).cells([PLAIN], [EXAMPLES[0], EXAMPLES[0]])
    with pytest.raises(UserError, match="example x has no gold answer"):
        Matrix(tmp_path / "m.jsonl", backend).cells([PLAIN], [Example("x", {"text": "a"}, ("b", "c"))])
    poor = Artifact(name="poor", template=as_chat(Template(question="{{ text }}")), scoring=Scoring("sum"))
    with pytest.raises(UserError, match=r"the prompt poor has only \d other forms"):
        forms_of(poor, EXAMPLES)
