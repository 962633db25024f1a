"""Demonstrations by the model itself: its own right thoughts, and the evenest of several draws; both cost answers."""

from dataclasses import replace

import pytest
from searches import BASELINE, EXAMPLES, LIMITED, SEARCH, Counting, planned, same

from wenlu.base.config import from_dict
from wenlu.base.errors import UserError
from wenlu.base.log import read_rows
from wenlu.inference.score import Score
from wenlu.prompting.answers import Extractor
from wenlu.prompting.artifact import Artifact, Decoding
from wenlu.prompting.backend import Written
from wenlu.prompting.demonstrations import global_entropy, shuffled
from wenlu.prompting.search.bootstrap import FIELD
from wenlu.prompting.search.optimize import Optimizer, Search
from wenlu.prompting.search.own import ANSWERED, PROBES, asked_for, own_prompts
from wenlu.prompting.search.proposals import propose
from wenlu.prompting.strategies import ChainOfThought, write_strategy
from wenlu.prompting.template import as_chat
from wenlu.prompting.trial import try_on

FREE = replace(BASELINE, scoring=None, extractor=Extractor("choice"), decoding=Decoding(max_tokens=12))
POOL = EXAMPLES[:30]
THINKS = Search(strategies=("chain_of_thought", "least_to_most"))


class Thinker:
    """Thinks, and is right about every third example."""

    name, calls = "a thinker", 0

    def generate(self, prompts, settings, advance=None):
        self.calls += len(prompts)
        numbers = [int(str(prompt).rsplit("炉子", 1)[1].split()[0]) for prompt in prompts]
        return [Written(f"So, {n}: " + ("four", "热的")[(n + (n % 3 > 0)) % 2], "stop", 9, 5) for n in numbers]


@pytest.mark.parametrize("chat", [False, True])
def test_right_thoughts_are_shown_before_other_questions(chat, capsys):
    baseline = replace(FREE, template=as_chat(FREE.template)) if chat else FREE
    thinker = Thinker()
    prompts = own_prompts(thinker, baseline, THINKS, POOL)
    right = {one.id for one in POOL if int(one.fields["text"].split()[0].removeprefix("炉子")) % 3 == 0}
    assert thinker.calls == ANSWERED == asked_for(baseline, THINKS, POOL)
    assert [one.demonstrations.shots for one in prompts] == [1, 2, 4, 8] and len({one.name for one in prompts}) == 4
    assert f"of {ANSWERED} answers that the model wrote are right" in capsys.readouterr().err
    for prompt in prompts:
        assert {one.id for one in prompt.pool} <= right and prompt.way == ChainOfThought("")
        for example in POOL:
            shown = prompt.shown_before(example)
            assert example.id not in {one.id for one in shown} and all(one.fields[FIELD] for one in shown)
            assert all(f"So, {one.fields['text'][2:].split()[0]}: " in str(prompt.prompt(example)) for one in shown)
    tried = propose(baseline, POOL, 20, 0, strategies=("chain_of_thought",), own=prompts)
    assert {one.name for one in prompts} <= {one.name for one in tried} and len(tried) == 20


def test_thoughts_never_stand_before_what_asks_the_same_under_another_id():
    twins = [replace(one, id=f"twin of {one.id}") for one in POOL]
    for prompt in own_prompts(Thinker(), FREE, THINKS, POOL):
        for twin in twins:
            assert twin.fields["text"] not in [one.fields["text"] for one in prompt.shown_before(twin)]


def test_what_is_refused_is_refused_before_the_model_is_asked(backend, tmp_path):
    short = replace(FREE, decoding=Decoding(max_tokens=3))
    cases = (
        (short, Search(strategies=("chain_of_thought", "self_consistency")), "a budget of 3 tokens"),
        (BASELINE, Search(strategies=("chain_of_thought",), draws=3), "the baseline scores choices: leave out scoring"),
        (FREE, Search(strategies=("chain_of_thought",), evaluations=20), "a budget of 20 evaluations is too small"),
    )
    for number, (baseline, search, words) in enumerate(cases):
        with pytest.raises(UserError, match=words):
            Optimizer(backend, baseline, EXAMPLES, search, tmp_path / f"{number}").run()
    assert backend.tokens_used == 0


def test_prompts_that_do_not_think_in_writing_cost_nothing(capsys):
    for baseline, search in ((BASELINE, Search()), (FREE, Search(strategies=("least_to_most",)))):
        assert own_prompts(None, baseline, search, POOL) == [] and asked_for(baseline, search, POOL) == 0
    thinking = replace(FREE, strategy=write_strategy(ChainOfThought("思考。")))
    assert asked_for(thinking, Search(), POOL) == ANSWERED
    named = [replace(one, fields={**one.fields, FIELD: "x"}) for one in POOL]
    assert own_prompts(None, thinking, Search(), named) == []
    assert f"the examples have a field '{FIELD}' already" in capsys.readouterr().err


def test_the_evenest_of_several_draws_is_tried():
    class Recent:
        """Says what the last demonstration says, but for some questions."""

        def score(self, queries, advance=None):
            found = []
            for query in queries:
                shown, asked = query.prefix.rsplit("\n\n", 1)
                last = int("热的" in shown.rsplit("Answer:", 1)[1])
                said = 1 - last if len(shown) * int(asked.split("炉子")[1].split()[0]) % 5 == 0 else last
                found.append([Score((float(choice == said),), 3, choice == said) for choice in (0, 1)])
            return found

    search = Search(draws=6, seed=3)
    (found,) = own_prompts(Recent(), BASELINE, search, POOL)
    assert found.name == "4 balanced examples, the evenest of 6 draws"
    assert asked_for(BASELINE, search, POOL) == 6 * PROBES
    probes = shuffled(POOL, 4)[:PROBES]
    draws = [replace(found, demonstrations=replace(found.demonstrations, seed=seed)) for seed in range(3, 9)]
    evenness = [global_entropy([cell.answer for cell in try_on(one, Recent(), probes)]) for one in draws]
    assert draws.index(found) == evenness.index(max(evenness)) and len(set(evenness)) > 1


class Cut(Counting):
    """Dies while it writes, too."""

    def generate(self, prompts, settings, advance=None):
        self.calls += 1
        if self.calls > self.dies_at:
            raise KeyboardInterrupt
        self.asked += len(prompts)
        return super().generate(prompts, settings, advance)


@pytest.mark.parametrize("kind", ["draws", "thoughts"])
def test_a_search_with_them_ends_the_same_wherever_it_is_cut_off(kind, model, tmp_path):
    search = replace(SEARCH, candidates=5, draws=3) if kind == "draws" else replace(
        SEARCH, candidates=4, strategies=("chain_of_thought",)
    )  # fmt: skip
    baseline = BASELINE if kind == "draws" else replace(FREE, extractor=Extractor(), decoding=Decoding(max_tokens=3))
    examples = EXAMPLES if kind == "draws" else [replace(one, gold=0) for one in EXAMPLES]
    backend = Cut(model)
    whole = Optimizer(backend, baseline, examples, search, tmp_path / "whole").run()
    rows = read_rows(tmp_path / "whole" / "search.jsonl")
    made = [from_dict(Artifact, one) for row in rows if row["event"] == "own" for one in row["made"]]
    if kind == "draws":
        names = [prompt["name"] for prompt in planned(tmp_path / "whole")["prompts"]]
        assert [one.name for one in made] == ["4 balanced examples, the evenest of 3 draws"] and made[0].name in names
    for dies_at in (0, 1, backend.calls // 2):
        cut = Cut(model)
        cut.dies_at = dies_at
        with pytest.raises(KeyboardInterrupt):
            Optimizer(cut, baseline, examples, search, tmp_path / f"{dies_at}").run()
        cut.dies_at = 1 << 60
        found = Optimizer(cut, baseline, examples, search, tmp_path / f"{dies_at}").run()
        assert found.tokens >= whole.tokens, "what the model was asked before it made a prompt is asked again"
        cost = {"best": replace(found.best, spent=whole.best.spent), "tokens": whole.tokens}
        assert same(replace(found, **cost), whole)


def test_they_count_for_the_limit(backend, tmp_path):
    plain, drawn = (
        Optimizer(backend, BASELINE, EXAMPLES, replace(LIMITED, draws=draws), tmp_path / f"{draws}") for draws in (0, 5)
    )
    assert drawn.limit.beside(4, 2) - plain.limit.beside(4, 2) == 5 * PROBES


def test_draws_want_common_choices(backend, tmp_path):
    exam = [replace(one, choices=("four", f"热的 {n}")) for n, one in enumerate(EXAMPLES)]
    with pytest.raises(UserError, match="draws are told apart by how evenly they spread the answers, but the examples"):
        Optimizer(backend, BASELINE, exam, Search(draws=2), tmp_path)
    with pytest.raises(UserError, match="draws must be at least 0, not -1"):
        Search(draws=-1)
