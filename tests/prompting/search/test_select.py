"""Choosing by halves: the same examples for all, within the budget, the same after any stop, and luck told apart."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenlu.base.errors import UserError
from wenlu.prompting.search.select import Ask, Selection, Told, best, choose, next_ask, optimism

PLAN = Selection(32, tuple(range(100, 500)), tuple(range(500, 700)), budget=8000, keep=4)


def matrix(seed: int, candidates: int = 32, better: int = 0) -> np.ndarray:
    """Right or wrong of all candidates on examples 0 to 699, which they find alike hard."""
    random = np.random.default_rng(seed)
    strengths = np.full((candidates, 1), 0.4)
    strengths[better] += 1.5 if better else 0
    return (random.random((candidates, 700)) < 1 / (1 + np.exp(random.normal(0, 1.5, 700) - strengths))).astype(float)


def scorer(right: np.ndarray, asked: list | None = None):
    """Scores from a matrix, noting what was asked."""

    def score(candidates, examples):
        if asked is not None:
            asked.append((candidates, examples))
        return right[np.ix_(candidates, examples)]

    return score


plans = st.tuples(*(st.integers(*ends) for ends in ((1, 40), (1, 60), (1, 20), (1, 6), (0, 3000), (0, 9))))
"""Candidates, search and select examples, how many are kept, what there is beyond the least budget, seed."""


@settings(max_examples=150, deadline=None)
@given(plans)
def test_budget_order_and_halves_are_kept_whatever_the_plan(drawn):
    candidates, search, select, keep, extra, seed = drawn
    plan = Selection(candidates, tuple(range(search)), tuple(range(100, 100 + select)), 10**6, keep, seed)
    plan = replace(plan, budget=plan.least + extra)
    asked = []
    found = choose(plan, scorer(np.random.default_rng(seed).random((candidates, 700)), asked))
    *rungs, last = asked
    assert sum(len(a) * len(b) for a, b in asked) == found.evaluations <= plan.budget
    assert len(rungs) == len(plan.schedule()) and all(a and b for a, b in asked)
    met = [example for _, examples in rungs for example in examples]
    assert len(met) == len(set(met)) and met == plan.order()[: len(met)]
    for (before, _), (after, _) in pairwise(rungs):
        assert set(after) < set(before) and len(after) >= keep
    assert last[1] == plan.select and last[0][0] == 0 and len(last[0]) <= keep + 1 and found.number in last[0]
    if len(rungs) and len(met) < search:
        wasted = plan.budget - plan.reserved - sum(len(a) * len(b) for a, b in rungs)
        assert wasted <= sum(len(a) for a, _ in rungs), "more examples would not have fitted"


def test_a_schedule_by_hand():
    assert PLAN.schedule() == [(32, 95), (16, 285), (8, 400)] and PLAN.reserved == 1000
    assert replace(PLAN, budget=7000 + 12800 - 1000).schedule() == [(32, 400)]
    assert replace(PLAN, keep=32, budget=6400).schedule() == []


def test_the_least_budget_is_one_example_each():
    assert PLAN.least == 1032 and replace(PLAN, budget=1032).schedule() == [(32, 1)]
    assert replace(PLAN, budget=1040).schedule() == [(32, 1), (8, 2)]
    assert replace(PLAN, keep=32).least == 32 * 200


def test_it_is_karnins_where_examples_do_not_run_out():
    """Rungs of equal cost, each half as many candidates with twice as many further examples."""
    plan = Selection(16, tuple(range(10_000)), (20_000,), budget=4 * 3200 + 2, keep=1)
    rungs, before = plan.schedule(), 0
    assert [number for number, _ in rungs] == [16, 8, 4, 2]
    for number, seen in rungs:
        assert number * (seen - before) == 3200
        before = seen


def test_the_better_one_is_found_and_the_baseline_stays_among_equals():
    found = choose(PLAN, scorer(matrix(0, better=17)))
    assert found.number == 17 and 17 in found.finalists and found.scores.shape == (len(found.finalists), 200)
    same = choose(PLAN, lambda candidates, examples: np.ones((len(candidates), len(examples))))
    assert same.number == 0 and same.finalists == (0, 1, 2, 3)


def test_the_baseline_comes_to_the_last_stage_though_it_lost_the_first():
    right = matrix(1)
    right[0, :500] = 0
    right[0, 500:] = 1
    found = choose(PLAN, scorer(right))
    assert found.number == 0 and len(found.finalists) == 5


def test_only_search_and_select_examples_are_ever_asked_for():
    asked = []
    choose(PLAN, scorer(matrix(2), asked))
    assert {example for _, examples in asked for example in examples} == set(range(100, 700))


@pytest.mark.parametrize("done", [0, 1, 2, 3, 4])
def test_stopped_anywhere_it_ends_as_if_it_never_had(done):
    right, log = np.random.default_rng(3).normal(size=(32, 700)), []
    whole = choose(PLAN, scorer(right), note=lambda answer: log.append(json.dumps(answer.as_dict())))
    assert len(log) == 4
    asked, told = [], [Told.from_dict(json.loads(row)) for row in log[:done]]
    resumed = choose(PLAN, scorer(right, asked), told)
    assert (resumed.number, resumed.finalists, resumed.evaluations) == (
        whole.number,
        whole.finalists,
        whole.evaluations,
    )
    assert (resumed.scores == whole.scores).all() and len(asked) == 4 - done


@pytest.mark.parametrize("rungs", [1, 2])
def test_a_halving_that_is_ended_goes_on_to_the_select_examples_and_is_told_again_so(rungs):
    right, asked, log = matrix(3), [], []
    found = choose(PLAN, scorer(right, asked), note=log.append, enough=lambda ask, told: len(told) == rungs)
    assert [answer.ask.stage for answer in log] == ["search"] * rungs + ["select"]
    assert [ask for ask in asked[:rungs]] == [(one.candidates, one.examples) for one in (a.ask for a in log[:rungs])]
    assert len(found.finalists) <= PLAN.keep + 1 and found.evaluations < PLAN.planned
    again = replace(PLAN, rungs=rungs)
    assert next_ask(again, log) is None and again.planned == found.evaluations
    assert choose(again, scorer(right), log).number == found.number


def test_a_log_of_something_else_is_refused():
    log = []
    choose(PLAN, scorer(matrix(4)), note=log.append)
    for other in (replace(PLAN, seed=1), replace(PLAN, budget=7000), replace(PLAN, candidates=31)):
        with pytest.raises(UserError, match="row 1 of the log answers another selection"):
            next_ask(other, log)
    with pytest.raises(UserError, match="answers beyond the end"):
        next_ask(PLAN, [*log, log[-1]])


def test_best_of_equals_are_the_first():
    assert best([0.5, 0.7, 0.5, 0.5], [4, 5, 6, 7], 2) == (4, 5) and best([1.0], [3], 4) == (3,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: replace(PLAN, budget=1031),
            "1,031 evaluations is too small for 32 candidates .* 1,032 at least",
        ),
        (lambda: replace(PLAN, select=(499, 500)), "1 examples are in both search and select"),
        (lambda: replace(PLAN, search=()), "selection.search wants examples"),
        (lambda: replace(PLAN, select=(500, 500)), "selection.select wants examples, each once"),
        (lambda: replace(PLAN, keep=0), "selection.keep must be at least 1, not 0"),
        (lambda: choose(PLAN, lambda *_: np.ones((2, 2))), r"32 candidates × 95 examples were wanted, not \(2, 2\)"),
        (
            lambda: Told(Ask("search", (0, 7), (1,)), [[0.1], [float("nan")]]),
            "candidate 7 has a score that is not finite",
        ),
        (lambda: optimism(np.ones((3, 4)), ["one"] * 4), "nothing can be left out"),
    ],
)
def test_wrong_uses_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_optimism_by_its_definition():
    random = np.random.default_rng(5)
    scores, groups = random.random((4, 30)), [f"组 {place // 3}" for place in range(30)]
    found, winners, elsewhere = optimism(scores, groups, resamples=50, seed=2), [], []
    for drawn in np.random.default_rng(2).multinomial(10, np.full(10, 0.1), size=50):
        bag = np.repeat(np.arange(30), np.repeat(drawn, 3))
        rest = np.flatnonzero(np.repeat(drawn, 3) == 0)
        winners.append(int(scores[:, bag].mean(1).argmax()))
        elsewhere.append(scores[winners[-1], rest].mean())
    assert found.apparent == scores.mean(1).max() and found.out_of_bag == pytest.approx(np.mean(elsewhere))
    assert found.chosen == tuple(winners.count(number) / 50 for number in range(4))
    assert found.optimism == found.apparent - found.out_of_bag


def test_optimism_of_equal_candidates_is_their_luck():
    """Best of 18 equal prompts on 100 examples reads points high; out of the bag it does not, on average."""
    apparent, honest = [], []
    for seed in range(80):
        found = optimism(matrix(seed, 18)[:, :100] - matrix(seed, 18).mean(), resamples=100, seed=seed)
        apparent.append(found.apparent)
        honest.append(found.out_of_bag)
    error = np.std(honest) / np.sqrt(80)
    assert np.mean(apparent) > 0.05 and abs(np.mean(honest)) < 3 * error + 0.002


def test_a_clear_winner_has_no_luck_to_take_off():
    scores = np.random.default_rng(6).random((5, 200))
    scores[3] += 2
    found = optimism(scores)
    assert found.chosen[3] == 1.0 and abs(found.optimism) < 0.005
