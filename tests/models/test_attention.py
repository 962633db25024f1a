"""Attention by whole products is the fused kernel's attention, values and gradients."""

import pytest
import torch

import wenlu.models.attention as attention
from wenlu.base.device import bf16_products
from wenlu.models.attention import attend, attend_explicitly


def tensors(new: int, seq: int, heads: int = 4, kv_heads: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads, new, 8), (2, kv_heads, seq, 8), (2, kv_heads, seq, 8)]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


MASK = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
CASES = {
    "causal": (6, 6, 4, None),
    "grouped": (6, 6, 2, None),
    "one new token": (1, 9, 4, None),
    "masked": (6, 6, 4, MASK & (torch.arange(6) != 2) | torch.eye(6, dtype=torch.bool)),
    "masked and grouped": (6, 6, 1, MASK),
}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_explicit_is_fused(case, causal):
    new, seq, kv_heads, mask = CASES[case]
    results = []
    for form in (attend, attend_explicitly):
        given = tensors(new, seq, kv_heads=kv_heads)
        y = form(*given, mask, causal=causal)
        results.append([y, *torch.autograd.grad(y.square().sum(), given)])
    for fused, explicit in zip(*results, strict=True):
        torch.testing.assert_close(explicit, fused, atol=1e-5, rtol=1e-5)


def test_not_causal_is_a_mask_that_hides_nothing():
    given = tensors(6, 6)
    everything = torch.ones(6, 6, dtype=torch.bool)
    for form in (attend, attend_explicitly):
        torch.testing.assert_close(form(*given, None, causal=False), form(*given, everything))
        assert (form(*given, None, causal=False) - form(*given, None)).abs().max() > 0.1


def test_dropout_is_of_the_weights():
    q, k, _ = tensors(6, 6)
    torch.manual_seed(0)
    ones = attend_explicitly(q, k, torch.ones_like(k), None, 0.5).detach()
    assert ones.std() > 0.1 and abs(float(ones.mean()) - 1) < 0.3
    torch.testing.assert_close(attend_explicitly(q, k, torch.ones_like(k), None), torch.ones_like(q))


def test_which_form_is_used(monkeypatch):
    seen = []
    monkeypatch.setattr(attention, "attend_explicitly", lambda *given: seen.append(given) or given[0])
    short, long = tensors(6, 6), tensors(2, attention.SHORT + 1)
    attend(*short, None)
    with bf16_products(False):
        attend(*short, None)
    assert not seen
    with bf16_products(True):
        attend(*short, None)
        attend(*long, None)
        attend(*(part.bfloat16() for part in long), None)
        attend(*(part.bfloat16() for part in tensors(2, attention.SHORT_COPIED + 1)), None)
    assert len(seen) == 2 and torch.get_float32_matmul_precision() == "highest"
