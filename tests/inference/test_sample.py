"""Choosing a token: filters equal to Transformers', greedy at temperature 0, draws that follow the probabilities."""

import math

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from wenlu.base.errors import UserError
from wenlu.inference.choose import NEAR
from wenlu.inference.sample import EPSILON, Greedy, Sampling, row_generators, strategy, two_best


def _logits(rows=6, vocab=50, scale=3.0, seed=0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 5, 500])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
@pytest.mark.parametrize("min_p", [0.0, 0.05, 0.5])
def test_filters_equal_transformers(temperature, top_k, top_p, min_p):
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    warpers.append(MinPLogitsWarper(min_p))
    logits = _logits()
    theirs = warpers(torch.zeros(6, 1, dtype=torch.long), logits.clone()).softmax(-1)
    ours = Sampling(temperature, top_k, top_p, min_p).probabilities(logits)
    assert torch.equal(ours > 0, theirs > 0), "the same tokens are left"
    torch.testing.assert_close(ours.float(), theirs, atol=1e-6, rtol=1e-5)


def test_temperature_zero_and_top_1_are_greedy():
    logits = _logits()
    best = logits.argmax(-1)
    assert strategy(temperature=0) == strategy(temperature=0.8, top_k=1) == Greedy()
    for chooser in (Greedy(), strategy(0), Sampling(0.8, top_k=1), Sampling(1e-300), Sampling(1.0, top_p=1e-9)):
        assert torch.equal(chooser.choose(logits, torch.Generator().manual_seed(0)).ids, best)


def test_equal_logits_are_greedy_at_top_1():
    logits = torch.zeros(3, 9)
    assert strategy(0).choose(logits).ids.tolist() == Sampling(1.0, top_k=1).choose(logits).ids.tolist() == [0, 0, 0]


def test_strategy_keeps_its_settings():
    assert strategy(0.7, 40, 0.9, 0.02) == Sampling(0.7, 40, 0.9, 0.02)


def test_draws_follow_the_probabilities():
    sampling = Sampling(0.8, top_k=6, top_p=0.95)
    logits = _logits(1, 10, 1.5)
    chances = sampling.probabilities(logits)[0]
    draws = sampling.choose(logits.expand(20_000, -1), torch.Generator().manual_seed(0))
    counts = torch.bincount(draws.ids, minlength=10).double()
    assert (counts[chances == 0] == 0).all()
    expected = chances[chances > 0] * 20_000
    assert ((counts[chances > 0] - expected) ** 2 / expected).sum() < 20, "chi-squared, at most 5 degrees of freedom"


def test_a_row_depends_on_its_own_generator_alone():
    sampling, logits = Sampling(1.0), _logits(5, 300, 0.1)
    together = sampling.choose(logits, row_generators(7, 5))
    assert torch.equal(together.ids[:2], sampling.choose(logits[:2], row_generators(7, 2)).ids)
    assert torch.equal(together.ids[4:], sampling.choose(logits[4:], row_generators(7, 5)[4:]).ids)
    assert len(set(sampling.choose(torch.zeros(5, 10_000), row_generators(0, 5)).ids.tolist())) == 5
    first = [sampling.choose(torch.zeros(1, 10_000), row_generators(seed, 1)).ids.item() for seed in range(20)]
    assert len(set(first)) >= 19, "neighbouring seeds differ"


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_extreme_draws_stay_among_what_is_left(draw, monkeypatch):
    monkeypatch.setattr(
        "wenlu.inference.sample._draws", lambda rows, _: torch.full((rows, 1), draw, dtype=torch.float64)
    )
    logits = _logits(40, 33)
    sampling = Sampling(1.0, top_k=3)
    chances = sampling.probabilities(logits).gather(1, sampling.choose(logits).ids[:, None])
    assert (chances > 0).all()


def test_bf16_logits_are_read():
    assert torch.equal(
        Sampling(0.5, top_k=2).probabilities(torch.tensor([[1.0, 2.0, 0.0]]).bfloat16())[0] > 0,
        torch.tensor([True, True, False]),
    )


@pytest.mark.parametrize("chooser", [Greedy(), Sampling(), Sampling(top_k=1)])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused(chooser, bad):
    logits = _logits()
    logits[3, 7] = bad
    with pytest.raises(UserError, match=r"not finite.*earlier checkpoint"):
        chooser.choose(logits)


@pytest.mark.parametrize("chooser", [Greedy(), Sampling(), Sampling(top_k=1), Sampling(top_p=0.5, min_p=0.1)])
def test_barred_tokens_are_never_chosen(chooser):
    logits = _logits()
    logits[:, 5:] = -math.inf
    assert chooser.choose(logits).ids.max() < 5
    logits[2] = -math.inf
    with pytest.raises(UserError, match="no token is left to choose: a constraint or a bias of -inf bars them all"):
        chooser.choose(logits)


@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 2), (2, 500), (1, 1 << 17), (3, 50257), (300, 1000), (70, 2048), (1 << 17, 1)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_two_best_are_the_first_of_the_largest_and_the_next(shape, dtype):
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    logits[0, -1] = logits[0].max()  # a tie, far apart
    before = logits.clone()
    ids, best, second = two_best(logits)
    expected = logits.sort(dim=-1, descending=True, stable=True)
    assert torch.equal(ids, expected.indices[:, 0]) and torch.equal(best, expected.values[:, 0])
    others = expected.values[:, 1] if shape[1] > 1 else torch.full_like(best, -math.inf)
    assert torch.equal(second, others) and torch.equal(logits, before)


def test_a_margin_tells_how_near_another_choice_was():
    assert Greedy().choose(torch.tensor([[0.0, 2.0, 1.5], [1.0, 1.0, 0.0]])).margin.tolist() == [0.5, 0.0]
    logits = torch.tensor([[0.0, 0.0]]).log_softmax(-1).expand(1000, 2)
    draws, generators = [], row_generators(3, 1000)
    choice = Sampling(1.0).choose(logits, generators)
    draws = [torch.rand(1, dtype=torch.float64, generator=g).item() for g in row_generators(3, 1000)]
    expected = torch.tensor([abs(draw - 0.5) for draw in draws], dtype=torch.float64)
    assert torch.allclose(choice.margin, expected, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.02, 0.7, 1.5])
@pytest.mark.parametrize("cut", [{}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.5}, {"top_k": 9, "top_p": 0.7}])
@pytest.mark.parametrize("step", [0.0, 0.1])
def test_logits_that_are_a_little_off_choose_the_same_but_for_near_ties(temperature, cut, step):
    """Many of those that go in steps lie at a cut."""
    if "min_p" in cut:
        cut = {"min_p": math.exp(-0.5 / temperature)}  # half a logit below the best: on a step
    sampling, noise = Sampling(temperature, **cut), torch.Generator().manual_seed(5)
    logits = _logits(20_000, 30, 2.0).double()
    logits = (logits / step).round() * step if step else logits
    first, second = (
        sampling.choose(
            logits + EPSILON * (torch.rand(logits.shape, dtype=torch.float64, generator=noise) - 0.5),
            torch.Generator().manual_seed(6),
        )
        for _ in range(2)
    )
    near = (first.margin < NEAR) | (second.margin < NEAR)
    assert not ((first.ids != second.ids) & ~near).any()
    assert near.double().mean() < (0.8 if step and cut else 0.03), "they are the exception"


BEST_TWO = (1 + math.exp(-1)) / (1 + math.exp(-1) + math.exp(-1.5))


@pytest.mark.parametrize(
    "near, far, cut",
    [
        ([1, 0.5, 0.499999], [1, 0.5, 0.3], {"top_k": 2}),
        ([1, 0.5, 0.499999], [1, 0.5, 0.3], {"top_p": 0.7}),
        ([1, 0, -0.5], [1, 0, -0.7], {"top_p": BEST_TWO + 1e-6}),
        ([1, 0, -0.5], [1, 0, -0.7], {"top_p": BEST_TWO - 1e-6}),
        ([1, 0, -0.5], [1, 0.2, -0.5], {"min_p": math.exp(-1) + 1e-6}),
        ([1, 0, -0.5], [1, -0.2, -0.5], {"min_p": math.exp(-1) - 1e-6}),
    ],
)
def test_a_token_at_a_cut_makes_near_ties(near, far, cut):
    def share(logits):
        rows = torch.tensor([logits], dtype=torch.float64).expand(400, -1)
        return (Sampling(**cut).choose(rows, row_generators(3, 400)).margin < NEAR).double().mean()

    assert share(near) > 0.25 and share(far) < 0.01


@pytest.mark.parametrize("temperature", [-0.1, math.nan, math.inf, -math.inf])
def test_temperature_is_checked(temperature):
    with pytest.raises(UserError, match="temperature must be 0"):
        strategy(temperature)


def test_sampling_itself_has_no_temperature_zero():
    with pytest.raises(UserError, match="temperature must be 0"):
        Sampling(temperature=0)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"top_k": -1}, "top_k must be 0 .* not -1"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\]"),
        ({"top_p": 1.01}, r"top_p must lie in \(0, 1\]"),
        ({"top_p": math.nan}, r"top_p must lie in \(0, 1\]"),
        ({"min_p": -0.1}, r"min_p must lie in \[0, 1\)"),
        ({"min_p": 1.0}, r"min_p must lie in \[0, 1\)"),
        ({"min_p": math.nan}, r"min_p must lie in \[0, 1\)"),
    ],
)
@pytest.mark.parametrize("temperature", [0, 0.8])
def test_filters_are_checked_even_when_greedy(settings, message, temperature):
    with pytest.raises(UserError, match=message):
        strategy(temperature, **settings)
