"""How likely tokens are: near enough to f64, and ties as a greedy choice breaks them."""

import pytest
import torch

from wenlu.inference.likelihood import likeliest, log_likelihoods
from wenlu.inference.sample import GREEDY


@pytest.mark.parametrize("vocab", [3, 512, 151_936])
@pytest.mark.parametrize("scale", [0.1, 5.0, 20.0])
def test_log_likelihoods_are_those_of_f64(vocab, scale):
    random = torch.Generator().manual_seed(vocab)
    logits = scale * torch.randn(4, vocab, generator=random)
    rows = torch.randint(0, 4, (40,), generator=random)
    ids = torch.randint(0, vocab, (40,), generator=random)
    ids[:4], rows[:4] = logits.argmax(-1), torch.arange(4)
    found = log_likelihoods(logits, ids, rows)
    assert found.dtype == torch.float64
    error = found - logits.double().log_softmax(-1)[rows, ids]
    assert error.abs().max() < 1e-5
    assert torch.equal(log_likelihoods(logits, ids[:4]), found[:4])


def test_the_likeliest_is_what_a_greedy_choice_takes():
    logits = torch.randint(0, 3, (50, 7), generator=torch.Generator().manual_seed(0)).float()
    rows, ids = torch.arange(50).repeat_interleave(7), torch.arange(7).repeat(50)
    chosen = GREEDY.choose(logits).ids
    assert torch.equal(likeliest(logits, ids, rows), ids == chosen[rows])
    assert torch.equal(likeliest(logits.bfloat16(), ids, rows), ids == chosen[rows])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_give_no_likelihood(value):
    logits = torch.zeros(2, 5)
    logits[1, 3] = value
    found = log_likelihoods(logits, torch.tensor([0, 0]))
    assert found.isfinite().tolist() == [True, False]
