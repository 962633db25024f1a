"""Kernels of training beside torch's own forms: values, gradients, odd sizes, the same bits each time."""

import math

import pytest
import torch
import torch.nn.functional as F

from wenlu.base.device import bf16_products
from wenlu.models import kernels as module
from wenlu.models import layers, passes
from wenlu.models.attention import attend_explicitly
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.training.cross_entropy import replace_by_gradient
from wenlu.training.objectives import objective_of

TYPES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
ROWS = [(1, 1), (5, 7), (3, 16), (4, 33), (130, 96), (700, 64)]


@pytest.fixture(autouse=True)
def found():
    if module._found_compiler() is None:
        pytest.skip("no C++ compiler on this machine")
    kernels = passes.passes()
    assert kernels is not None
    with passes.using(kernels):
        yield kernels


def numbers(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()


def close(function, reference, *tensors, tolerance):
    """The same values and gradients, beside those in f64."""
    wide = [t.detach().double().requires_grad_() for t in tensors]
    y, true = function(*tensors), reference(*wide)
    weights = torch.randn(true.shape, generator=torch.Generator().manual_seed(9))
    found = [y, *torch.autograd.grad((y.float() * weights).sum(), tensors)]
    wanted = [true, *torch.autograd.grad((true * weights).sum(), wide)]
    for one, other in zip(found, wanted, strict=True):
        one, other = one.detach(), other.detach()
        assert one.shape == other.shape
        assert (one.double() - other).abs().max() <= tolerance * max(1.0, float(other.abs().max()))


def normed_by(x, weight):
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows, dim", ROWS)
def test_rms_norm(dtype, rows, dim):
    x, weight = numbers(rows, dim, dtype=dtype), numbers(dim, seed=1)
    assert passes.in_use(x)
    close(
        lambda x, w: layers.rms_norm(x, w, 1e-5),
        normed_by,
        *(x, weight),
        tolerance=TYPES[dtype],
    )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("activation", passes.ACTIVATIONS)
@pytest.mark.parametrize("rows, ffn", ROWS)
def test_gated(dtype, activation, rows, ffn):
    close(
        lambda x: layers.gated(x, activation),
        lambda x: layers.ACTIVATIONS[activation](x[..., :ffn]) * x[..., ffn:],
        numbers(rows, 2 * ffn, dtype=dtype),
        tolerance=TYPES[dtype],
    )


def turned(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("placed", ["nowhere", "in order", "from 3 on", "anywhere"])
@pytest.mark.parametrize("heads, kv_heads, size", [(4, 2, 32), (3, 1, 22), (2, 2, 70)])
def test_heads(dtype, normed, placed, heads, kv_heads, size):
    batch, seq, both = 2, 19, heads + kv_heads
    qkv = numbers(batch, seq, (both + kv_heads) * size, dtype=dtype)
    norms = [numbers(size, seed=seed) for seed in (1, 2)] if normed else []
    angles = torch.outer(torch.arange(64.0), 0.7 ** torch.arange(size // 2))
    table = None if placed == "nowhere" else (angles.cos(), angles.sin())
    anywhere = torch.randint(0, 64, (batch, seq), generator=torch.Generator().manual_seed(3))
    places = {"from 3 on": slice(3, 3 + seq), "anywhere": anywhere}.get(placed, slice(0, seq))

    def reference(qkv, *norms):
        x = qkv.view(batch, seq, -1, size)
        q, k, v = x[:, :, :heads], x[:, :, heads:both], x[:, :, both:]
        if norms:
            q, k = normed_by(q, norms[0]), normed_by(k, norms[1])
        if table:
            cos, sin = (side[places].unsqueeze(-2).double() for side in table)
            q, k = turned(q, cos, sin), turned(k, cos, sin)
        return torch.cat([side.transpose(1, 2).flatten() for side in (q, k, v)])

    def ours(qkv, *norms):
        sides = passes.heads(qkv, (heads, kv_heads, size), norms or (None, None), 1e-5, table, places)
        assert all(side.is_contiguous() for side in sides)
        return torch.cat([side.flatten() for side in sides])

    close(ours, reference, qkv, *norms, tolerance=TYPES[dtype])


MASKS = {
    "causal": lambda: None,
    "documents": lambda: (torch.arange(21) // 6 == torch.arange(21)[:, None] // 6).tril(),
    "by row": lambda: (torch.arange(21) < torch.tensor([[21], [9]]))[:, None, None],
    "bias": lambda: numbers(1, 3, 21, 21, seed=5),
    "bias by row": lambda: numbers(2, 1, 1, 21, seed=5),
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", MASKS)
def test_attention(dtype, name):
    mask, size = MASKS[name](), 20
    q, k, v = (numbers(2, 3, 21, size, dtype=dtype, seed=seed) for seed in range(3))
    learned = [mask] if mask is not None and mask.is_floating_point() else []

    def of(function, q, k, v, bias):
        given = bias[0] if bias else mask
        return function(q, k, v, given, 0.0, 0.3, name == "causal")

    def reference(q, k, v, *bias):
        with passes.using(None):
            return of(attend_explicitly, q, k, v, bias)

    close(lambda q, k, v, *b: of(passes.attend, q, k, v, b), reference, q, k, v, *learned, tolerance=TYPES[dtype])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows, vocab", [(1, 2), (7, 33), (40, 1001)])
def test_cross_entropy(dtype, smoothing, rows, vocab):
    logits = (5 * numbers(rows, vocab)).detach().to(dtype)
    targets = torch.randint(0, vocab, (rows,), generator=torch.Generator().manual_seed(1))
    targets[::5] = -100
    wide = logits.double().requires_grad_()
    true = F.cross_entropy(wide, targets, reduction="sum", label_smoothing=smoothing)
    (gradient,) = torch.autograd.grad(true, wide) if (targets >= 0).any() else (torch.zeros_like(wide),)
    loss, true = replace_by_gradient(logits, targets, smoothing), true.detach()
    assert abs(float(loss) - float(true)) <= 1e-5 * max(1.0, float(true))
    assert (logits.double() - gradient).abs().max() <= (1e-6 if dtype == torch.float32 else 5e-3)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_keeps_the_mean_and_drops_the_same_numbers_in_both_passes(p):
    torch.manual_seed(0)
    x = torch.ones(1 << 20, requires_grad=True)
    y = layers.dropout(x, p, True)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(y, gradient) and torch.allclose(y[y != 0], torch.tensor(1 / (1 - p)))
    expected, spread = p * len(y), math.sqrt(len(y) * p * (1 - p))
    assert abs(int((y == 0).sum()) - expected) < 4 * spread
    zero = (y == 0).double()
    for apart in (1, 2, 16, 1024):  # whether one is dropped says nothing of another
        both = float((zero[apart:] * zero[:-apart]).mean())
        assert abs(both - p * p) < 4 * p / math.sqrt(len(y))
    assert not torch.equal(layers.dropout(x, p, True), y)
    torch.manual_seed(0)
    assert torch.equal(layers.dropout(x, p, True), y)


def test_dropout_onto_the_residual_stream():
    x, new = numbers(40, 33), numbers(40, 33, dtype=torch.bfloat16, seed=1)
    torch.manual_seed(1)
    alone = layers.dropout(new.detach().float().requires_grad_(), 0.3, True)
    torch.manual_seed(1)
    y = layers.add_dropped(x, new, 0.3, True)
    assert torch.allclose(y, x + alone, atol=1e-6)
    of_x, of_new = torch.autograd.grad(y.sum(), (x, new))
    assert torch.equal(of_x, torch.ones_like(x)) and torch.equal(of_new == 0, alone == 0)
    assert layers.add_dropped(x, x, 0.3, False).equal(2 * x) and layers.add_dropped(x, x, 0.0, True).equal(2 * x)


def test_dropout_of_attention():
    q, k, v = (numbers(2, 2, 300, 300, seed=seed) for seed in range(3))
    torch.manual_seed(0)
    y = passes.attend(q, k, torch.eye(300).expand(2, 2, 300, 300).requires_grad_(), None, 0.25, 0.02, False)
    whole = passes.attend(q, k, torch.eye(300).expand(2, 2, 300, 300).requires_grad_(), None, 0.0, 0.02, False)
    kept = y != 0
    assert torch.allclose(y[kept], whole[kept] / 0.75, rtol=1e-5) and abs(float(kept.float().mean()) - 0.75) < 0.005
    torch.manual_seed(0)
    y = passes.attend(q, k, v, None, 0.25, 0.02, False)
    wide = [t.detach().double().requires_grad_() for t in (q, k, v)]
    weights = (wide[0] @ wide[1].mT * 0.02).softmax(-1) * kept / 0.75
    found, wanted = torch.autograd.grad(y.sum(), (q, k, v)), torch.autograd.grad((weights @ wide[2]).sum(), wide)
    assert all((one - other).abs().max() < 1e-4 for one, other in zip(found, wanted, strict=True))


FAMILIES = {
    "qwen3": {"kv_heads": 2, "head_dim": 22},
    "llama": {},
    "mistral": {"kv_heads": 1, "window": 5},
    "gpt2": {},
    "bert": {},
    "t5": {"pad_id": 0, "gated": True, "activation": "gelu_new"},
}


def gradients(model, batch, precision):
    model.zero_grad()
    with bf16_products(precision == "medium"):
        loss, _ = objective_of(model.config).loss(model, batch)
        loss.backward()
    return loss.detach(), [weight.grad.clone() for weight in model.parameters()]


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_learns_alike_with_kernels_and_without(family, precision, shaken):
    config = ModelConfig(family, dim=48, layers=2, heads=4, context=33, vocab=61, **FAMILIES[family])
    model = shaken(build(config, 0)).train()
    ids, targets = torch.randint(1, 61, (2, 3, 33), generator=torch.Generator().manual_seed(0))
    targets[0, :5] = -100
    batch = {"ids": ids, "targets": targets} | ({"decoder_ids": ids} if family == "t5" else {})
    loss, found = gradients(model, batch, precision)
    assert torch.equal(loss, gradients(model, batch, precision)[0])
    with passes.using(None):
        wanted_loss, wanted = gradients(model, batch, precision)
    torch.testing.assert_close(loss, wanted_loss, rtol=1e-5 if precision == "highest" else 2e-3, atol=0)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() <= (1e-4 if precision == "highest" else 5e-2) * other.norm() + 1e-6


def test_bits_repeat_whatever_stands_beside(found):
    x, weight = numbers(700, 64), numbers(64, seed=1)

    def made():
        return torch.autograd.grad(layers.rms_norm(x, weight, 1e-5).square().sum(), (x, weight))

    first = made()
    assert all(torch.equal(one, other) for _ in range(3) for one, other in zip(first, made(), strict=True))


def test_what_is_not_finite_stays_so():
    x = numbers(4, 33).detach()
    x[1, 3], x[2, 5] = float("nan"), float("inf")
    x.requires_grad_()
    y = layers.rms_norm(x, numbers(33, seed=1), 1e-5)
    assert y[1].isnan().all() and not y[2].isfinite().all() and y[[0, 3]].isfinite().all()
    assert not layers.gated(x[:, :32].contiguous(), "silu").isfinite().all()
    q = x.view(1, 1, 4, 33)
    assert not passes.attend(q, q, q, None, 0.0, 1.0, False).isfinite().any()
    for row in (1, 2):
        targets = torch.tensor([3, 3, 3, 3])
        assert not replace_by_gradient(x.detach()[row : row + 1].clone(), targets[:1]).isfinite()


def test_a_target_beyond_the_vocabulary_is_our_mistake():
    with pytest.raises(AssertionError, match="a target beyond the vocabulary"):
        replace_by_gradient(torch.zeros(2, 5), torch.tensor([1, 5]))


def test_where_they_serve():
    x = numbers(4, 8)
    assert passes.in_use(x) and passes.replaces(x.detach())
    with torch.no_grad():
        assert not passes.in_use(x)
    with passes.using(None):
        assert not passes.in_use(x) and not passes.replaces(x.detach())
    assert not passes.in_use(x.double()) and not passes.replaces(x.detach().T)
    assert passes.in_use(x)


def test_no_compiler_is_said(monkeypatch, tmp_path):
    lines = []
    monkeypatch.setattr(module, "say", lambda text, style="": lines.append(text))
    monkeypatch.setenv("CXX", str(tmp_path / "absent"))
    passes.passes.cache_clear()
    try:
        assert passes.passes() is None
    finally:
        passes.passes.cache_clear()
    (line,) = lines
    assert "torch's own passes over memory are used, which take longer" in line and "absent" in line
