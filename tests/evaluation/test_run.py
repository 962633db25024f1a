"""Tasks put to models: the figures are those of each text read alone; what was done once is not done again."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from wenlu.base.errors import UserError
from wenlu.evaluation.candidate import Candidate
from wenlu.evaluation.compare import compare
from wenlu.evaluation.kinds import Choice, Cloze, Contexts, Pairs, Texts
from wenlu.evaluation.results import Results
from wenlu.evaluation.run import plan, run_task
from wenlu.evaluation.task import Settings, Task
from wenlu.evaluation.writing import Writing
from wenlu.inference.generator import Generator, begin_id
from wenlu.inference.generator import Settings as WritingSettings
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.prompting.answers import Extractor
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Template
from wenlu.tokenization.tokenizer import Tokenizer

from small_models import BYTES, model_of, random_model

TEMPLATE = Template("Q: {{ asked }}\nA:")
CHOICES = tuple(
    Example(str(n), {"asked": f"which comes after {n}? 哪个？"}, (str(n + 1), "第三个答案", f"number {n}"), n % 3)
    for n in range(12)
)
CHOICE = Task("next", Choice(), CHOICES, TEMPLATE)
PAIRS = Task("pairs", Pairs(), tuple(Example(str(n), {}, (f"Right {n}.", f"right {n}!"), 0) for n in range(6)))
CLOZE = Task("end", Cloze(), tuple(Example(str(n), {"asked": "x" * n}, answers=("ab",)) for n in range(6)), TEMPLATE)
WRITTEN = Task(
    "write",
    Writing(extractor=Extractor("number"), max_tokens=8),
    tuple(Example(str(n), {"asked": f"{n}?"}, answers=("7",)) for n in range(5)),
    TEMPLATE,
)
TEXTS = Task("texts", Texts(), tuple(Example(str(n), {"text": f"文本 {n} " * (n + 1)}) for n in range(4)))


def candidate(family="llama", seed=1, context=96):
    return Candidate(random_model(family, context=context, seed=seed), BYTES, family, f"{family} {seed}")


def log_probability(model, context: str, continuation: str) -> float:
    """As lm-evaluation-harness has it: the whole is encoded and cut, space at the context's end goes behind the cut."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    begin = begin_id(model, BYTES)
    before = [begin, *(BYTES.encode(context) if context else [])]
    whole = [begin, *BYTES.encode(context + continuation)]
    with torch.inference_mode():
        logits = model(torch.tensor([whole]))[0].double().log_softmax(-1)
    return sum(float(logits[place - 1, whole[place]]) for place in range(len(before), len(whole)))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "lstm"])
@pytest.mark.parametrize("shots", [0, 2])
def test_choices_are_scored_as_each_text_alone(family, shots):
    one = candidate(family, context=256)
    outcome = run_task(CHOICE, one, Settings(shots=shots))
    before = "".join(f"Q: {e.fields['asked']}\nA: {e.right}\n\n" for e in CHOICES[:shots])
    asked = CHOICES[shots:]
    assert [row["id"] for row in outcome.rows] == [example.id for example in asked]
    found = {"acc": [], "acc_norm": [], "acc_bytes": []}
    for row, example in zip(outcome.rows, asked, strict=True):
        prompt = f"{before}Q: {example.fields['asked']}\nA:"
        sums = np.array([log_probability(one.model, prompt, f" {choice}") for choice in example.choices])
        assert row["log_probabilities"] == pytest.approx(sums, abs=1e-3)
        lengths = np.array([len(choice) for choice in example.choices])
        sizes = np.array([len(choice.encode()) for choice in example.choices])
        for name, by in (("acc", 1), ("acc_norm", lengths), ("acc_bytes", sizes)):
            found[name].append(float(np.argmax(sums / by) == example.gold))
    for name, values in found.items():
        assert outcome.figures[name].value == pytest.approx(np.mean(values))
        assert outcome.figures[name].interval.low <= np.mean(values) <= outcome.figures[name].interval.high
    assert outcome.chance == pytest.approx(1 / 3)


def test_pairs_have_a_space_before_them_and_nothing_else():
    one = candidate()
    outcome = run_task(PAIRS, one)
    for row, example in zip(outcome.rows, PAIRS.examples, strict=True):
        sums = [log_probability(one.model, "", f" {choice}") for choice in example.choices]
        assert row["log_probabilities"] == pytest.approx(sums, abs=1e-3)
        assert row["scores"]["acc"] == float(sums[0] >= sums[1])
    assert outcome.chance == 0.5 and outcome.uncertainty is None


def test_an_ending_is_scored_after_each_context():
    one = candidate()
    fields = {"continuation": "was late."}
    examples = tuple(Example(str(n), fields, (f"Ann saw {n} and Ann", f"Ann saw {n} and 王"), n % 2) for n in range(3))
    outcome = run_task(Task("contexts", Contexts(), examples), one, Settings(shots=1))
    for row, example in zip(outcome.rows, examples[1:], strict=True):
        shown = examples[0].right + " was late.\n\n"
        sums = [log_probability(one.model, shown + context, " was late.") for context in example.choices]
        assert row["log_probabilities"] == pytest.approx(sums, abs=1e-3)


def test_a_cloze_is_right_where_greedy_writing_gives_it():
    one = candidate()
    generator = Generator(one.model, BYTES)
    examples = []
    for n in range(4):
        said = generator.generate(f"Q: {n}\nA:", WritingSettings(max_tokens=3, temperature=0.0))[0].text
        examples.append(Example(str(n), {"asked": str(n)}, answers=(said if n % 2 and "\ufffd" not in said else "zz",)))
    outcome = run_task(Task("end", Cloze(), tuple(examples), replace(TEMPLATE, delimiter="")), one)
    right = [float(example.answers[0] != "zz") for example in examples]
    assert [row["scores"]["acc"] for row in outcome.rows] == right
    sums = [log_probability(one.model, f"Q: {n}\nA:", example.answers[0]) for n, example in enumerate(examples)]
    assert outcome.figures["perplexity"].value == pytest.approx(math.exp(-np.mean(sums)), rel=1e-3)


def test_written_answers_are_those_of_a_generator_alone():
    one = candidate()
    outcome = run_task(WRITTEN, one)
    settings = WritingSettings(max_tokens=8, temperature=0.0, stop=("\n",))
    for row, example in zip(outcome.rows, WRITTEN.examples, strict=True):
        alone = Generator(one.model, BYTES).generate(f"Q: {example.fields['asked']}\nA:", settings)[0]
        assert row["text"] == alone.text
    assert "no answer was found" in " ".join(outcome.notes)


def test_texts_are_measured_as_perplexity_is():
    one = candidate()
    outcome = run_task(TEXTS, one)
    sums = [log_probability(one.model, "", example.fields["text"]) for example in TEXTS.examples]
    size = sum(len(example.fields["text"].encode()) for example in TEXTS.examples)
    assert outcome.figures["bits_per_byte"].value == pytest.approx(-sum(sums) / math.log(2) / size, rel=1e-4)
    assert outcome.figures["perplexity"].interval.high >= outcome.figures["perplexity"].value


def test_parts_that_lose_bytes_have_no_bits_and_are_named(tmp_path):
    parted = [replace(one, fields={**one.fields, "book": "ab"[n > 1]}) for n, one in enumerate(TEXTS.examples)]
    parted, file = replace(TEXTS, part="book", examples=tuple(parted)), tmp_path / "rows.jsonl"

    def run():
        results = Results(file)
        outcome = run_task(parted, candidate(), results=results)
        results.close()
        return outcome

    assert set(run().parts) == {"a", "b"}
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    del rows[1]["scores"]["bits_per_byte"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = run()
    assert set(outcome.parts) == {"b"} and "bits_per_byte" not in outcome.figures
    assert "no bits_per_byte of a: the tokenizer does not give back every byte there" in outcome.notes
    whole = run_task(TEXTS, candidate(seed=2))
    for pair in ((outcome, whole), (whole, outcome)):
        pair = [replace(one, task=TEXTS) for one in pair]
        assert set(compare(*pair).verdicts) == {"nats_per_token"}


def test_short_texts_are_read_side_by_side(monkeypatch):
    from wenlu.evaluation import perplexity, run

    one, sizes, batch_nats = candidate(), [], perplexity._batch_nats
    monkeypatch.setattr(
        perplexity, "_batch_nats", lambda model, part: sizes.append(len(part)) or batch_nats(model, part)
    )
    together = run_task(TEXTS, one)
    assert sizes == [4]
    monkeypatch.setattr(run, "BYTES_AT_ONCE", 30)
    alone = run_task(TEXTS, one)
    assert sizes[1:] == [3, 1], "so many bytes, or the last text more"
    for row, other in zip(together.rows, alone.rows, strict=True):
        assert row["nats"] == pytest.approx(other["nats"], abs=1e-3)
        assert (row["tokens"], row["bytes"]) == (other["tokens"], other["bytes"])


@pytest.mark.parametrize("task", [CHOICE, PAIRS, CLOZE, WRITTEN, TEXTS], ids=lambda task: task.name)
def test_a_killed_evaluation_goes_on(task, tmp_path, monkeypatch):
    from wenlu.evaluation import run

    monkeypatch.setattr(run, "AT_ONCE", 2)
    one, file = candidate(), tmp_path / "rows.jsonl"
    whole = run_task(task, one)

    class Killed(Exception):
        pass

    results, done = Results(file), []

    def kill(number):
        done.append(number)
        if sum(done) >= 3:
            raise Killed

    with pytest.raises(Killed):
        run_task(task, one, results=results, advance=kill)
    results.close()
    torn = file.read_bytes()
    kept = torn.count(b"\n")
    assert 0 < kept < len(task.examples)
    file.write_bytes(torn + b'{"model": "tor')
    told = []
    results = Results(file)
    outcome = run_task(task, one, results=results, advance=told.append)
    results.close()
    assert told[0] == kept and sum(told) == len(task.examples)
    assert [row["id"] for row in outcome.rows] == [row["id"] for row in whole.rows]
    for name, figure in whole.figures.items():
        assert outcome.figures[name].value == pytest.approx(figure.value, abs=1e-4)
    assert file.read_bytes().startswith(torn) and len(file.read_text().splitlines()) == len(task.examples)


def test_results_of_other_shots_are_refused(tmp_path):
    results = Results(tmp_path / "rows.jsonl")
    run_task(CHOICE, candidate(context=256), Settings(limit=3), results)
    with pytest.raises(UserError, match="other prompts, shots or settings"):
        run_task(replace(CHOICE, pool=CHOICES[:2]), candidate(context=256), Settings(shots=1, limit=3), results)
    results.close()
    (tmp_path / "other.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(UserError, match="something else than results of tasks"):
        Results(tmp_path / "other.jsonl")
    with pytest.raises(UserError, match="is a folder"):
        Results(tmp_path)


def test_every_text_is_encoded_once_and_kept_until_it_is_scored(monkeypatch):
    from wenlu.evaluation import fit, run

    monkeypatch.setattr(run, "AT_ONCE", 4)
    monkeypatch.setattr("wenlu.inference.score.PART", 1 << 10)
    one, texts, encode = candidate(context=256), [], BYTES.encode_batch
    monkeypatch.setattr(BYTES, "encode_batch", lambda given: texts.extend(given) or encode(given))
    kept = run_task(CHOICE, one, Settings(shots=2))
    assert len(texts) == len(set(texts)) == 10 * (1 + 3)
    for room in (0, 1500):
        texts.clear()
        monkeypatch.setattr(fit, "KEPT", room)
        planned = plan(CHOICE, one, Settings(shots=2))
        assert 4 * sum(len(pairs[0].prefix) for (pairs,) in planned.pairs if pairs) <= room
        assert run_task(CHOICE, one, Settings(shots=2)).rows == kept.rows
        assert len(texts) > 2 * 40 and len(set(texts)) == 40, "what is not kept is encoded anew"


LONG = replace(CHOICE, examples=(*CHOICES[:3], Example("long", {"asked": "字" * 60}, ("a", "bb", "c"), 1)))


def test_prompts_too_long_are_refused_or_cut_and_said():
    one = candidate("gpt2")
    with pytest.raises(UserError, match=r"1 of 4 prompts are longer than the 96 tokens that this gpt2 reads .*--shots"):
        plan(LONG, one, Settings())
    planned = plan(LONG, one, Settings(cut=True))
    assert "1 of 4 prompts were cut from the left" in " ".join(planned.notes)
    ((prompt, continuations),) = planned.asks[3]
    whole = f"Q: {'字' * 60}\nA:"
    assert whole.endswith(prompt) and prompt != whole
    longest = max(len(a) + len(b) for a, b, *_ in one.scorer.pairs([one.query((prompt, continuations))]))
    assert 94 < longest <= 97, "as much as fits, after one beginning token"
    assert max(len(a) + len(b) for a, b, *_ in planned.pairs[3][0]) == longest
    assert len(run_task(LONG, one, Settings(cut=True)).rows) == 4


def test_a_rotary_model_reads_on_and_that_is_said():
    notes = " ".join(run_task(LONG, candidate("llama")).notes)
    assert "1 of 4 prompts are longer than the 96 tokens that the model was trained on" in notes
    assert "cut" in " ".join(run_task(LONG, candidate("llama"), Settings(cut=True)).notes)
    assert not run_task(LONG, candidate("lstm")).notes


def test_a_prompt_to_be_written_after_leaves_room():
    long = replace(WRITTEN, examples=(Example("long", {"asked": "y" * 200}, answers=("7",)),))
    planned = plan(long, candidate("gpt2"), Settings(cut=True))
    ids = candidate("gpt2").prompt_ids(planned.asks[0][0][0])
    assert len(ids) == 96 + 1 - 8
    with pytest.raises(UserError, match="longer than the 96 tokens that this gpt2 reads"):
        plan(long, candidate("gpt2"), Settings())


def test_what_a_family_cannot_do_is_refused():
    for family, tasks, words in (
        ("bert", (CLOZE, TEXTS), "a bert, which reads both ways, gives none"),
        ("bert", (WRITTEN,), "a bert cannot write on"),
        ("t5", (PAIRS, TEXTS), "a t5 gives those of answers only"),
    ):
        one = Candidate(random_model(family), BYTES, family)
        for task in tasks:
            with pytest.raises(UserError, match=words):
                plan(task, one, Settings())


def test_a_t5_chooses_and_writes():
    one = candidate("t5", context=128)
    assert len(run_task(CHOICE, one).rows) == 12 and len(run_task(WRITTEN, one).rows) == 5


def test_zero_shot_is_zero_shot_with_one_beginning_token():
    one = candidate("gpt2")
    planned = plan(CHOICE, one, Settings())
    assert [ask[0][0] for ask in planned.asks] == [f"Q: {example.fields['asked']}\nA:" for example in CHOICES]
    begin = begin_id(one.model, BYTES)
    for prefix, after, *_ in one.scorer.pairs([one.query(ask) for asks in planned.asks for ask in asks]):
        assert (prefix + after).count(begin) == 1 and prefix[0] == begin


def test_an_outcome_is_json_with_an_interval_for_every_figure():
    found = json.loads(json.dumps(run_task(CHOICE, candidate("llama", context=256), Settings(risk=0.2)).as_dict()))
    assert {"acc", "acc_norm", "acc_bytes"} == set(found["figures"])
    assert all({"value", "low", "high"} <= set(figure) for figure in found["figures"].values())
    assert found["uncertainty"]["abstention"]["wanted"] == 0.2 and 0 <= found["uncertainty"]["brier"]["value"] <= 2


WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] q a yes no right wrong first : ? . 猫 坐".split()


def test_a_bert_compares_texts_by_pseudo_log_probabilities(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    words = Tokenizer.load(tmp_path)
    one = Candidate(build(ModelConfig("bert", dim=32, layers=1, heads=4, context=24, vocab=words.vocab), 0), words)
    examples = tuple(Example(str(n), {"asked": "猫 first"}, ("yes", "no no"), n % 2) for n in range(3))
    outcome = run_task(Task("t", Choice(), examples, TEMPLATE), one)
    scores = one.scorer.score("Q: 猫 first?\nA:".replace("?", ""), [" yes", " no no"])
    assert outcome.rows[0]["log_probabilities"] == pytest.approx([score.log_probability for score in scores], abs=1e-4)
    pairs = Task("p", Pairs(), tuple(Example(str(n), {}, ("猫 坐", "坐 猫"), 0) for n in range(2)))
    assert len(run_task(pairs, one).rows) == 2
    long = Task("t", Choice(), (Example("1", {"asked": "猫 " * 30}, ("yes", "no"), 0),), TEMPLATE)
    with pytest.raises(UserError, match="longer than the 24 tokens that this bert reads"):
        plan(long, one, Settings())
    assert len(run_task(long, one, Settings(cut=True)).rows) == 1


def test_a_token_over_the_border_is_said():
    model, tokenizer = model_of("bpe")
    one = Candidate(model, tokenizer)
    joined = next(
        piece.decode()
        for piece in map(tokenizer.token_bytes, range(tokenizer.vocab))
        if piece.isalpha() and len(piece) > 2
    )
    template = replace(TEMPLATE, question="{{ asked }}", delimiter="")
    task = Task("t", Choice(), (Example("1", {"asked": joined[:-1]}, (joined[-1], "二"), 0),), template)
    assert "in 1 texts a token would span the border" in " ".join(run_task(task, one).notes)


@pytest.mark.parametrize("task", [WRITTEN, TEXTS], ids=lambda task: task.name)
def test_texts_that_fail_leave_the_others_done(task, tmp_path, kernel_cache):
    one = candidate()
    with torch.no_grad():
        one.model.embed.weight[BYTES.encode("3")[0]] = float("nan")
    results, count = Results(tmp_path / "rows.jsonl"), len(task.examples)
    with pytest.raises(UserError, match=f"1 of {count} texts have failed, the others are done; example 3: the "):
        run_task(task, one, results=results)
    results.close()
    kept = [json.loads(line)["id"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert sorted(kept) == [str(number) for number in range(count) if number != 3]


def test_rows_of_an_older_judging_are_not_mixed_with_those_of_now(tmp_path, monkeypatch):
    def run():
        results = Results(tmp_path / "rows.jsonl")
        try:
            return run_task(CHOICE, candidate(), results=results)
        finally:
            results.close()

    run()
    monkeypatch.setattr("wenlu.evaluation.run.FORM", 3)
    with pytest.raises(UserError, match="holds results of task next with other prompts, shots or settings, or by an o"):
        run()
