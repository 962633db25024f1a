"""Update rules against their formulas and against torch.optim."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.training.muon import Muon, orthogonalise
from wenlu.training.objectives import causal
from wenlu.training.optimizers import Optimizer, hidden_matrices
from wenlu.training.recipe import OptimizerConfig

FAMILIES = ("lstm", "gpt2", "llama", "qwen3")
NAMES = ("muon", "adamw", "adam", "sgd")


def tiny(family: str, tied: bool = True):
    model = build(ModelConfig(family, dim=16, layers=2, heads=2, context=8, vocab=29, tied=tied), 0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def backward(model, seed: int) -> None:
    """Gradients of the mean loss over random ids."""
    windows = torch.randint(29, (4, 9), generator=torch.Generator().manual_seed(seed))
    model.zero_grad()
    loss, count = causal(model, {"ids": windows[:, :-1], "targets": windows[:, 1:]})
    (loss / count).backward()


def weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_sgd_is_w_minus_lr_times_gradient(family):
    """To the bit; with a power of two as learning rate, whether the processor fuses the product or not."""
    model = tiny(family)
    backward(model, 0)
    expected = {name: p.detach() - 0.5 * 0.25 * p.grad for name, p in model.named_parameters()}
    Optimizer(model, OptimizerConfig("sgd", lr=0.25)).step(0.5)
    assert all(torch.equal(w, expected[name]) for name, w in weights(model).items())


def test_sgd_decays_matrices_only():
    model = tiny("qwen3")
    backward(model, 0)
    expected = {
        name: p.detach() - 0.3 * (p.grad + (0.1 * p.detach() if p.ndim > 1 else 0))
        for name, p in model.named_parameters()
    }
    Optimizer(model, OptimizerConfig("sgd", lr=0.3, weight_decay=0.1)).step(1.0)
    for name, w in weights(model).items():
        torch.testing.assert_close(w, expected[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("family", FAMILIES)
def test_adam_is_torchs(family, name, decay):
    ours, theirs = tiny(family), tiny(family)
    config = OptimizerConfig(name, lr=0.01, beta1=0.8, beta2=0.9, weight_decay=decay)
    optimizer = Optimizer(ours, config)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in theirs.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    reference = getattr(torch.optim, {"adam": "Adam", "adamw": "AdamW"}[name])(groups, betas=(0.8, 0.9), foreach=False)
    for step in range(5):
        backward(ours, step)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.grad = mine.grad.clone()
        for group in reference.param_groups:
            group["lr"] = 0.01 * (step + 1) / 5
        optimizer.step((step + 1) / 5)
        reference.step()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize("shape", [(4, 16, 16), (3, 16, 64), (2, 8, 9), (1, 32, 200)])
def test_singular_values_come_near_1(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.3 and values.max() < 1.3


def test_orthogonalising_keeps_the_singular_vectors_and_forgets_the_scale():
    matrix = torch.randn((1, 12, 20), generator=torch.Generator().manual_seed(1))
    made = orthogonalise(matrix)
    torch.testing.assert_close(orthogonalise(1000 * matrix), made, rtol=1e-3, atol=1e-4)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    turned = u.mT @ made @ vt.mT
    assert (turned - torch.diag_embed(turned.diagonal(dim1=1, dim2=2))).abs().max() < 1e-3
    assert torch.isfinite(orthogonalise(torch.zeros(1, 4, 4))).all()


def test_parts_of_a_stack_are_made_orthogonal_one_by_one():
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn(40, 16, generator=generator)
    gradient = torch.randn(40, 16, generator=generator)
    gradient[16:24] *= 1000
    before, parts = matrix.clone(), (16, 8, 16)
    matrix.grad = gradient
    Muon({"stack": matrix}, {"stack": parts}, 0.95, 0.0).step(0.1)
    update = (before - matrix) / 0.1
    for got, of in zip(update.split(parts), gradient.split(parts), strict=True):
        torch.testing.assert_close(got, orthogonalise(of[None])[0], rtol=1e-2, atol=2e-3)
    whole = orthogonalise(gradient.T[None])[0].T
    assert (update - whole).abs().max() > 0.1


def test_muon_is_nesterov_momentum_scaled_by_its_shape():
    """As the formula, in the plain: tall matrices go √(rows / columns) further; decay is decoupled."""
    generator = torch.Generator().manual_seed(4)
    shapes = {"tall": (32, 8), "wide": (8, 32), "square": (8, 8)}
    matrices = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    muon = Muon(matrices, {}, 0.9, 0.01)
    expected = {name: m.clone() for name, m in matrices.items()}
    momentum = {name: torch.zeros_like(m) for name, m in matrices.items()}
    for _ in range(3):
        for name, matrix in matrices.items():
            matrix.grad = g = torch.randn(shapes[name], generator=generator)
            momentum[name] = 0.9 * momentum[name] + 0.1 * g
            ahead = 0.9 * momentum[name] + 0.1 * g
            rows, columns = ahead.shape
            update = orthogonalise(ahead.T[None])[0].T if rows > columns else orthogonalise(ahead[None])[0]
            expected[name] = (1 - 0.05 * 0.01) * expected[name] - 0.05 * max(1, rows / columns) ** 0.5 * update
        muon.step(0.05)
    for name, matrix in matrices.items():
        torch.testing.assert_close(matrix, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_stacked_parts_fill_their_matrices(family):
    model = tiny(family)
    named = dict(model.named_parameters())
    found = hidden_matrices(model)
    assert found and all(sum(parts) == named[name].shape[0] for name, parts in found.items())
    assert any(len(parts) > 1 for parts in found.values())
    assert not any("embed" in name or "lm_head" in name for name in found)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_goes_by_exactly_one_rule(family, name, tied):
    model = tiny(family, tied)
    optimizer = Optimizer(model, OptimizerConfig(name, lr=0.01, weight_decay=0.1))
    ruled = [n for rule in optimizer._rules for n in rule.weights]
    ruled += list(optimizer._muon.matrices) if optimizer._muon else []
    assert sorted(ruled) == sorted(n for n, _ in model.named_parameters())
    assert bool(optimizer._muon) == (name == "muon")
    before = weights(model)
    backward(model, 0)
    optimizer.step(1.0)
    assert all(not torch.equal(before[n], after) for n, after in weights(model).items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_state_goes_through_safetensors(family, name, tmp_path):
    """Saved after 3 steps and taken up by another optimiser, steps 4 and 5 are the same to the bit."""
    config = OptimizerConfig(name, lr=0.01, weight_decay=0.01)
    model, other = tiny(family), tiny(family)
    optimizer = Optimizer(model, config)
    for step in range(3):
        backward(model, step)
        optimizer.step(1.0)
    save_file({n: t.detach().clone() for n, t in optimizer.state().items()}, tmp_path / "state.safetensors")
    other.load_state_dict(model.state_dict())
    again = Optimizer(other, config)
    again.load(load_file(tmp_path / "state.safetensors"))
    for step in (3, 4):
        for m, o in ((model, optimizer), (other, again)):
            backward(m, step)
            o.step(0.5)
    assert all(torch.equal(w, weights(other)[n]) for n, w in weights(model).items())
    assert (name == "sgd") == (not optimizer.state())
