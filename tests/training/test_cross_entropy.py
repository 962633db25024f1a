"""The loss that finds its gradient on the way, against torch's, in both number formats."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import wenlu.training.cross_entropy as module
from wenlu.data.batch import NO_TARGET
from wenlu.training.cross_entropy import cross_entropy, replace_by_gradient


def reference(logits, targets, smoothing):
    leaf = logits.double().requires_grad_()
    loss = F.cross_entropy(leaf, targets, reduction="sum", label_smoothing=smoothing)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def drawn(rows: int, vocab: int, spread: float, left_out: bool, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocab, generator=generator) * spread
    targets = torch.randint(vocab, (rows,), generator=generator)
    if left_out:
        targets[::3] = NO_TARGET
    return logits, targets


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 9),
    vocab=st.integers(2, 70),
    spread=st.sampled_from([0.0, 1.0, 40.0]),
    left_out=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1]),
    block=st.sampled_from([1, 150, 1 << 19]),
)
def test_loss_and_gradient_are_torchs(rows, vocab, spread, left_out, smoothing, block):
    logits, targets = drawn(rows, vocab, spread, left_out)
    loss, gradient = reference(logits, targets, smoothing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        found = logits.clone()
        told = replace_by_gradient(found, targets, smoothing)
    assert torch.isclose(told.double(), loss, rtol=1e-5, atol=1e-4)
    assert (found - gradient).abs().max() < 2e-6


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_backward_scales_it(dtype, smoothing):
    logits, targets = drawn(5, 30, 2.0, left_out=True)
    logits = logits.to(dtype).requires_grad_()
    loss, gradient = reference(logits.detach(), targets, smoothing)
    told = cross_entropy(logits, targets, smoothing)
    assert told.dtype == torch.float32 and torch.isclose(told.double(), loss, rtol=1e-5)
    (told / 4).backward()
    assert logits.grad.dtype == dtype
    assert torch.allclose(
        logits.grad.double(), gradient / 4, rtol=2**-7 if dtype == torch.bfloat16 else 1e-5, atol=1e-6
    )


def test_a_sure_target_has_a_small_gradient_in_bf16():
    """Softmax in bf16 would round 0.9985 to 1, and leave nothing to learn."""
    logits = torch.tensor([[6.5, 0.0]], dtype=torch.bfloat16)
    _, gradient = reference(logits, torch.tensor([0]), 0.0)
    replace_by_gradient(logits, torch.tensor([0]))
    assert torch.allclose(logits.double(), gradient, rtol=2**-8) and float(logits[0, 0]) < 0


def test_what_is_not_finite_shows():
    logits = torch.tensor([[float("nan"), 0.0]])
    assert torch.isnan(replace_by_gradient(logits, torch.tensor([1])))


def test_nothing_to_foretell_is_nothing():
    logits = torch.randn(3, 4)
    assert float(replace_by_gradient(logits, torch.full((3,), NO_TARGET))) == 0 and not logits.any()
