"""A search for a prompt: the same whenever and however often it is cut off, judged on what it never saw."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from searches import BASELINE, EXAMPLES, LIMITED, SEARCH, Counting, planned, same

from wenlu.base.config import from_dict
from wenlu.base.errors import UserError
from wenlu.base.log import read_rows
from wenlu.models.config import ModelConfig
from wenlu.prompting.answers import Extractor
from wenlu.prompting.artifact import Artifact, Decoding, Shown, read_artifact
from wenlu.prompting.backend import Written
from wenlu.prompting.calibrate import Prior, Scoring
from wenlu.prompting.demonstrations import Demonstrations
from wenlu.prompting.examples import Example
from wenlu.prompting.search.limit import Limit
from wenlu.prompting.search.optimize import Optimizer, Search
from wenlu.prompting.search.outcome import Unjudged
from wenlu.prompting.search.page import write_page
from wenlu.prompting.search.proposals import Room, propose
from wenlu.prompting.search.split import Looks
from wenlu.prompting.template import Template, as_chat
from wenlu.prompting.trial import bare, try_on

from small_models import BYTES

LIMITS = [
    ("sum", {"evaluations": 140}), ("sum", {"tokens": 40_000}), ("sum", {"minutes": 3}),
    ("batch", {"evaluations": 205}), ("batch", {"tokens": 58_000}), ("batch", {"minutes": 4.5}),
    ("contextual", {"evaluations": 60}), ("contextual", {"minutes": 4}),
]  # fmt: skip
"""Little more than the least that a search needs, so that whatever is spent beside the plan passes it."""


@pytest.mark.parametrize(("kind", "limit"), LIMITS, ids=[f"{kind}-{next(iter(limit))}" for kind, limit in LIMITS])
def test_limits_are_kept_by_all_that_comes_before_the_test_and_by_a_search_cut_off(
    kind, limit, model, tmp_path, monkeypatch
):
    baseline, search, before_test = replace(BASELINE, scoring=Scoring(kind)), replace(LIMITED, **limit), []

    def run(folder, dies_at=1 << 60):
        backend = Counting(model)
        backend.dies_at = dies_at
        optimizer = Optimizer(backend, baseline, EXAMPLES, search, folder, clock=lambda: float(backend.asked))
        monkeypatch.setattr(
            Looks, "take", lambda *_, **__: before_test.append((backend.asked, backend.tokens_used)) or 1
        )
        try:
            return optimizer.run(), backend
        except KeyboardInterrupt:
            return None, backend

    whole, backend = run(tmp_path / "whole")
    asked, tokens = before_test[0] if before_test else (backend.asked, backend.tokens_used)
    assert tokens == whole.tokens == whole.best.spent.all_tokens
    assert whole.evaluations <= limit.get("evaluations", 1 << 60)
    queries = 4 if kind == "contextual" else 1
    assert queries * whole.evaluations >= asked > 40
    begun = planned(tmp_path / "whole")
    each = max(cost(model, one, EXAMPLES[:6]) for one in begun["prompts"]) if "tokens" in limit else 0
    assert begun["evaluations"] * each <= limit.get("tokens", 0), "whichever prompt goes on, the limit is kept"
    assert tokens <= limit.get("tokens", 1 << 60) and asked <= 60 * limit.get("minutes", 1 << 60)
    for dies_at in (0, 1, backend.calls // 3, 2 * backend.calls // 3):
        folder = tmp_path / f"cut-{dies_at}"
        assert run(folder, dies_at)[0] is None
        assert same(run(folder)[0], whole)


def test_a_search_that_costs_more_than_was_measured_goes_on_to_the_select_examples(model, tmp_path, capsys):
    search = replace(LIMITED, minutes=3)

    def run(folder, dies_at=1 << 60, before=0):
        """Each query after the first six takes ten seconds; before: queries of an earlier process."""
        backend = Counting(model)
        backend.dies_at = dies_at
        clock = lambda: float(10 * (before + backend.asked) - 9 * min(6, before + backend.asked))  # noqa: E731
        try:
            return Optimizer(backend, BASELINE, EXAMPLES, search, folder, clock=clock).run(), backend
        except KeyboardInterrupt:
            return None, backend

    whole, backend = run(tmp_path / "whole")
    rows = read_rows(tmp_path / "whole" / "search.jsonl")
    assert [row["rungs"] for row in rows if row["event"] == "short"] == [1]
    assert [row["told"]["stage"] for row in rows if row["event"] == "told"] == ["search", "select"]
    assert "of 180 seconds are spent, which leaves too little for another rung: going on" in capsys.readouterr().err
    for dies_at in (1, backend.calls // 2, backend.calls - 1):
        folder = tmp_path / f"cut-{dies_at}"
        assert same(run(folder, before=run(folder, dies_at)[1].asked)[0], whole)


def test_a_rung_that_was_begun_is_ended_whatever_it_would_be_judged_by_when_it_is_gone_on_with(
    backend, tmp_path, monkeypatch
):
    whole = Optimizer(backend, BASELINE, EXAMPLES, SEARCH, tmp_path).run()
    log = tmp_path / "search.jsonl"
    rows = read_rows(log)
    last = max(number for number, row in enumerate(rows) if row["event"] == "rung")
    log.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[: last + 1]), encoding="utf-8")
    monkeypatch.setattr(Limit, "met", lambda *_: True)
    found = Optimizer(backend, BASELINE, EXAMPLES, SEARCH, tmp_path).run()
    # All cells are kept, and count for what came before the test.
    assert same(replace(found, best=replace(found.best, spent=whole.best.spent), tokens=whole.tokens), whole)


def test_what_an_answer_costs_is_measured_on_examples_of_all_lengths(backend, tmp_path, monkeypatch):
    measured = []

    def measure(prompt, backend, examples, embed=None):
        measured.extend(examples)
        return try_on(prompt, backend, examples, embed)

    monkeypatch.setattr("wenlu.prompting.search.limit.try_on", measure)
    sized = [replace(one, fields={"text": "warm " * (1 + n * 7 % 60)}) for n, one in enumerate(EXAMPLES)]
    optimizer = Optimizer(backend, BASELINE, sized, replace(LIMITED, tokens=200_000), tmp_path)
    optimizer.run()
    lengths = sorted(len(sized[number].fields["text"]) for number in optimizer.parts.search)
    found = [len(one.fields["text"]) for one in measured]
    assert len(found) == 6 and (min(found), max(found)) == (lengths[0], lengths[-1])
    assert sum(found) / 6 == pytest.approx(sum(lengths) / len(lengths), rel=0.15)


@pytest.mark.parametrize(("family", "reads"), [("gpt2", 97), ("llama", 97), ("bert", 94), ("lstm", 0), ("t5", 0)])
def test_a_prompt_has_the_room_that_a_model_of_its_family_has(family, reads):
    config = ModelConfig(family, dim=32, layers=1, heads=4, context=96, vocab=BYTES.vocab)
    backend = SimpleNamespace(model=SimpleNamespace(config=config), tokenizer=BYTES, prompt_ids=BYTES.encode)
    prompt = replace(BASELINE, template=Template(question="{{ text }}"))

    def fits(length):
        return Room(backend, [replace(EXAMPLES[0], fields={"text": "a" * (length - 7)})])(prompt)

    assert fits(reads or 9999) and (not reads or not fits(reads + 1)), "with 热的 and the space before it"


def cost(model, prompt, examples):
    """Tokens that an answer costs, where several are asked for at once."""
    backend = Counting(model)
    try_on(replace(from_dict(Artifact, prompt), scoring=Scoring("sum"), prior=None), backend, examples)
    return backend.tokens_used / len(examples)


def test_a_search_cut_off_anywhere_ends_as_it_would_have(backend, tmp_path):
    whole = Optimizer(backend, BASELINE, EXAMPLES, SEARCH, tmp_path / "whole").run()
    calls = backend.calls
    assert calls > 12
    for dies_at in (1, calls // 3, 2 * calls // 3, calls - 1):
        folder = tmp_path / f"cut-{dies_at}"
        for limit in (dies_at, 1 << 60):
            backend.calls, backend.dies_at = 0, limit
            try:
                outcome = Optimizer(backend, BASELINE, EXAMPLES, SEARCH, folder).run()
            except KeyboardInterrupt:
                assert limit == dies_at
        assert same(outcome, whole)
    backend.calls, backend.dies_at = 0, 1 << 60
    assert same(Optimizer(backend, BASELINE, EXAMPLES, SEARCH, tmp_path / "whole").run(), whole)
    assert backend.calls == 0, "what is on the disk is not asked for again"


def test_the_test_part_is_seen_by_two_prompts_and_only_at_the_end(backend, tmp_path):
    outcome = Optimizer(backend, BASELINE, EXAMPLES, SEARCH, tmp_path).run()
    optimizer = Optimizer(backend, BASELINE, EXAMPLES, SEARCH, tmp_path)
    test = {EXAMPLES[number].id for number in optimizer.parts.test}
    search = {EXAMPLES[number].id for number in optimizer.parts.search}
    rows = [row for row in read_rows(tmp_path / "matrix.jsonl") if "example" in row]
    seen = {row["prompt"] for row in rows if row["example"] in test}
    assert seen <= {optimizer.matrix.key(outcome.best), optimizer.matrix.key(outcome.baseline)}
    order = [row["example"] in test for row in rows]
    assert order == sorted(order)
    prompts = planned(tmp_path)["prompts"]
    assert {shown["id"] for prompt in prompts for shown in prompt["pool"]} <= search
    assert len(read_rows(tmp_path / "looks.jsonl")) == (0 if outcome.verdict is None else 1)


def test_a_search_finds_a_planted_better_prompt(backend, tmp_path, monkeypatch):
    """A backend that answers rightly where the instruction is short."""
    from wenlu.inference.score import Score

    def score(queries, advance=None):
        found = []
        for query in queries:
            short = "Read it" not in query.prefix
            number = int(query.prefix.rsplit("炉子", 1)[1].split()[0])
            right = number % 2 if short or number % 3 else 1 - number % 2
            found.append([Score((0.0 if choice == right else -1.0,), 3, choice == right) for choice in (0, 1)])
        return found

    monkeypatch.setattr(backend, "score", score)
    examples = [replace(one, fields={"text": f"炉子{n} is warm"}) for n, one in enumerate(EXAMPLES * 4)]
    examples = [replace(one, id=f"x{n}", gold=n % 2) for n, one in enumerate(examples)]
    outcome = Optimizer(backend, BASELINE, examples, Search(candidates=7), tmp_path).run()
    assert outcome.verdict.word == "better"
    assert "Read it" not in outcome.best.template.instruction
    assert outcome.of_best.value == 1.0 and outcome.of_baseline.value < 0.8
    assert outcome.best.verdict.difference == pytest.approx(outcome.verdict.difference.value)
    outcome.best.write(tmp_path / "prompt.json")
    assert read_artifact(tmp_path / "prompt.json") == outcome.best
    write_page(
        tmp_path / "report.html", Optimizer(backend, BASELINE, examples, Search(candidates=7), tmp_path), outcome
    )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "better" in page and "<svg" in page
    assert 'src="' not in page and 'href="http' not in page, "a page needs no network"


def test_what_costs_nothing_to_measure_is_no_measure(backend, tmp_path, monkeypatch):
    """As of an endpoint's answers that are kept from before: a search with such a limit would have none."""
    monkeypatch.setattr(Counting, "tokens_used", 0)
    with pytest.raises(
        UserError, match="what an answer costs cannot be measured in time, for those asked for are kept"
    ):
        Optimizer(backend, BASELINE, EXAMPLES, replace(LIMITED, minutes=5), tmp_path).run()


def test_choices_that_differ_are_searched_without_the_score_that_needs_the_same(backend, tmp_path, capsys):
    exam = [replace(one, choices=("four", f"热的 {n}")) for n, one in enumerate(EXAMPLES)]
    outcome = Optimizer(backend, BASELINE, exam, Search(candidates=4, keep=1), tmp_path).run()
    assert {finalist.prompt.scoring.kind for finalist in outcome.finalists} == {"sum", "per_byte"}
    assert "batch is left out of the scores: it needs the same choices everywhere" in capsys.readouterr().err


def test_proposals_are_different_and_depend_on_the_seed_alone():
    once, again, other = (propose(BASELINE, EXAMPLES[:20], 24, seed) for seed in (0, 0, 1))
    assert once == again != other
    assert once[0] == BASELINE and len({bare(one).sha256 for one in once}) == len(once) == 24
    assert len({one.name for one in once}) == 24
    assert any(one.pool for one in once) and any(not one.pool for one in once[1:])
    clauses = replace(BASELINE.template, instruction="Read it, with care, to its end. Say, shortly, what fits.")
    edited = [one.name for one in propose(replace(BASELINE, template=clauses), EXAMPLES[:20], 24, 0)]
    assert len(set(edited)) == 24 and "sentence 1 shortened (2)" in edited


def test_no_candidate_shows_or_compares_by_what_the_baseline_does_not_name(capsys):
    """A row may hold its answer in other words; a prompt that shows it is no better prompt."""
    pool = [replace(one, fields={**one.fields, "label": one.gold, "label_text": one.right}) for one in EXAMPLES[:20]]
    prompts = propose(BASELINE, pool, 60, 0)
    told = replace(pool[0], fields={**pool[0].fields, "label": 77, "label_text": "秘密"})
    for prompt in prompts:
        before, shown = prompt.shown_before(told), str(prompt.prompt(told))
        assert "77" not in shown and "秘密" not in shown
        assert before == prompt.shown_before(pool[0]), "no label chooses demonstrations"
    assert any(prompt.name.startswith("form") for prompt in prompts)
    assert any(prompt.demonstrations.kind == "bm25" for prompt in prompts)
    assert "do not show what the baseline does not name: label, label_text" in capsys.readouterr().err
    nested = replace(BASELINE, template=Template(instruction="Read. Say.", question="{{ doc.title }}"))
    propose(nested, [replace(one, fields={"doc": {"title": "炉"}, "label": one.right}) for one in pool], 9, 0)
    assert "no other forms are tried: the baseline names no field" in capsys.readouterr().err


def test_what_batch_calibration_learned_of_the_baseline_is_its_alone():
    kept = replace(BASELINE, scoring=Scoring("batch"), prior=Prior((" four", " 热的"), (-1.0, -2.0)))
    first, *others = propose(kept, EXAMPLES[:20], 12, 0)
    assert first == kept and all(other.prior is None for other in others)


def test_what_a_model_cannot_read_is_left_out_and_others_come(backend, capsys):
    room = Room(backend, EXAMPLES)
    prompts = propose(BASELINE, EXAMPLES, 12, 0, fits=lambda one: room(one) and not one.pool)
    assert len(prompts) == 12 and not any(one.pool for one in prompts)
    assert "prompts left out, longer than the model reads" in capsys.readouterr().err
    propose(BASELINE, EXAMPLES, 12, 0, fits=lambda one: one != prompts[1])
    assert capsys.readouterr().err == "1 prompt left out, longer than the model reads\n"
    assert max(map(room.needed, prompts)) <= backend.model.config.context


def test_a_model_reads_every_example_with_its_own_options_and_demonstrations(backend):
    """The longest prompt is not that of the example with the longest fields."""
    letters = replace(BASELINE, template=Template(question="{{ text }}\n{{ options }}\n", choices="letters"))
    wordy = [*EXAMPLES[:9], replace(EXAMPLES[9], fields={"text": "a"}, choices=("four " * 30, "热的"))]
    longest = letters.template.render(wordy[9])
    assert Room(backend, wordy).needed(letters) == len(backend.prompt_ids(longest)) + len(" A")
    sized = [replace(one, fields={"text": f"{word} is"}) for one, word in zip(EXAMPLES, ("a", "stove", "stove " * 40))]
    alike = replace(
        BASELINE, demonstrations=Demonstrations("bm25", 1), pool=tuple(Shown.of(one) for one in (sized[0], sized[2]))
    )
    assert Room(backend, sized).needed(alike) == len(backend.prompt_ids(alike.prompt(sized[1]))) + len(" four")


def test_a_writers_words_are_tried(capsys):
    class Writer:
        name = "a writer"

        def generate(self, prompts, settings):
            assert "Read it. Say what fits." in prompts[0][0]["content"]
            words = ("Choose well.", "", "Choose well.", "{{ bad }}")[settings.seed % 4]
            return [Written(words, "stop", 9, 3)]

    prompts = propose(BASELINE, EXAMPLES[:20], 8, 0, writer=Writer())
    assert prompts[1].template.instruction == "Choose well." and prompts[1].name == "written 1"
    assert "of 4 instructions that a writer wrote, 1 are new and of use" in capsys.readouterr().err


def test_conversations_are_searched_too(backend, tmp_path):
    baseline = replace(BASELINE, template=as_chat(BASELINE.template))
    outcome = Optimizer(backend, baseline, EXAMPLES, Search(candidates=4, keep=1), tmp_path).run()
    assert all(finalist.prompt.template.chat for finalist in outcome.finalists)


def test_other_ways_to_answer_are_tried_within_the_same_budget(backend, tmp_path):
    free = replace(BASELINE, scoring=None, extractor=Extractor("choice"), decoding=Decoding(max_tokens=12))
    ways = ("chain_of_thought", "self_consistency")
    outcome = Optimizer(backend, free, EXAMPLES, Search(candidates=4, keep=1, strategies=ways), tmp_path).run()
    prompts = [from_dict(Artifact, one) for one in planned(tmp_path)["prompts"]]
    assert [one.name for one in prompts if one.name in ways] == list(ways) and outcome.finalists
    assert [one.way.trigger for one in prompts if one.name in ways] == ["让我们一步一步地思考。"] * 2
    assert {one.decoding.max_tokens for one in prompts} == {12}
    with pytest.raises(UserError, match="a budget of 2 tokens is too little for 5 samples"):
        propose(replace(free, decoding=Decoding(max_tokens=2)), EXAMPLES, 4, 0, strategies=ways)
    open_ended = [replace(one, choices=(), gold=None, answers=(one.right,)) for one in EXAMPLES]
    with pytest.raises(UserError, match="the answer's form is one of the choices, but a question has none"):
        propose(replace(free, decoding=Decoding(max_tokens=99)), open_ended, 4, 0, strategies=["reason_then_constrain"])
    with pytest.raises(UserError, match="strategies write their answers, but the baseline scores choices"):
        propose(BASELINE, EXAMPLES, 4, 0, strategies=ways)


REFUSED = [
    (dict(strategies=("think",)), "a strategy is one of direct, .* not 'think'"),
    (dict(candidates=1), "candidates must be at least 2"),
    (dict(evaluations=5, minutes=1), "a search has one limit: give evaluations or minutes, not both"),
    (dict(scores=("sums",)), "a score is one of .* not 'sums'. Did you mean 'sum'"),
    (dict(minutes=float("nan")), "minutes"),
    (dict(evaluations=-1), "evaluations must be at least 0"),
    (dict(keep=0), "keep must be at least 1"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refused_settings(settings, message):
    with pytest.raises(UserError, match=message):
        Search(**settings)


def test_refused_searches(backend, tmp_path):
    Optimizer(backend, BASELINE, EXAMPLES, SEARCH, tmp_path / "one").run()
    with pytest.raises(UserError, match=rf"holds another search \(seed {SEARCH.seed}, now 9\): give another --out"):
        Optimizer(backend, BASELINE, EXAMPLES, replace(SEARCH, seed=9), tmp_path / "one")
    with pytest.raises(UserError, match=r"holds another search \(other examples\)"):
        Optimizer(backend, BASELINE, EXAMPLES[:-1], SEARCH, tmp_path / "one")
    other = replace(BASELINE, template=replace(BASELINE.template, instruction="Say it."))
    with pytest.raises(UserError, match=r"holds another search \(another prompt or model\)"):
        Optimizer(backend, other, EXAMPLES, SEARCH, tmp_path / "one")
    with pytest.raises(UserError, match=r"fell to the .* part, which needs"):
        Optimizer(backend, BASELINE, EXAMPLES[:4], SEARCH, tmp_path / "two")
    free = [Example(str(n), {"text": "a"}, answers=("b",)) for n in range(60)]
    with pytest.raises(UserError, match="the prompt scores choices, but example 0 has none"):
        Optimizer(backend, BASELINE, free, SEARCH, tmp_path / "three")
    long = replace(BASELINE, template=replace(BASELINE.template, instruction="long " * 200))
    with pytest.raises(UserError, match=r"the baseline comes to .* tokens with its answer, but the model reads 512"):
        Optimizer(backend, long, EXAMPLES, SEARCH, tmp_path / "four").run()
    with pytest.raises(UserError, match="a budget of 3 evaluations is too small"):
        Optimizer(backend, BASELINE, EXAMPLES, Search(evaluations=3), tmp_path / "five").run()
    little = r"--tokens 900 is enough for \d+ answers, and 24 candidates want \d+: give more, or fewer --candidates"
    with pytest.raises(UserError, match=little):
        Optimizer(backend, BASELINE, EXAMPLES, Search(tokens=900), tmp_path / "little").run()
    looked = tmp_path / "looked.jsonl"
    six = Optimizer(backend, BASELINE, EXAMPLES, SEARCH, tmp_path / "six", looks=Looks(looked))
    Looks(looked).take([EXAMPLES[number] for number in six.parts.test[:1]], "another prompt")
    with pytest.raises(
        Unjudged, match=r"1 of the \d+ test examples were looked at already, last for another"
    ) as caught:
        six.run()
    left = caught.value.outcome
    assert left.best.verdict is None and left.best.splits and left.finalists and "looked at already" in left.unjudged
    write_page(tmp_path / "six" / "report.html", six, left)
    assert "was chosen, but has no verdict" in (tmp_path / "six" / "report.html").read_text(encoding="utf-8")
    assert (
        Optimizer(backend, BASELINE, EXAMPLES, SEARCH, tmp_path / "six", looks=Looks(looked), again=True).run().look
        == 2
    )
    with pytest.raises(UserError, match="a writer words an instruction anew, but the baseline has none"):
        bald = replace(BASELINE, template=Template(question="{{ text }}"), decoding=Decoding(max_tokens=5))
        propose(bald, EXAMPLES, 4, 0, writer=backend)


def test_a_conversation_without_a_place_for_demonstrations_gets_one():
    """Else a search would end at the first candidate that has some."""
    from wenlu.prompting.template import Part

    bare_chat = (Part("user", "{{ prompt.instruction }}\n{{ prompt.question }}"),)
    baseline = replace(BASELINE, template=replace(BASELINE.template, chat=bare_chat))
    tried = propose(baseline, EXAMPLES[:20], 12, 0)
    shown = [one for one in tried if one.pool and one.template.question == baseline.template.question]
    assert shown and not baseline.template.shows_demonstrations
    for prompt in shown:
        messages = prompt.prompt(EXAMPLES[30])
        assert len(messages) == 1 + 2 * prompt.demonstrations.shots and messages[-1]["role"] == "user"
