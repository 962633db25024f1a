"""The LSTM against torch's own: outputs, state, gradients."""

import torch

from wenlu.models.build import build
from wenlu.models.config import ModelConfig


def pair(dim: int, layers: int):
    """Our model and torch's LSTM with the same weights."""
    model = build(ModelConfig(family="lstm", dim=dim, layers=layers, context=16, vocab=30), 0).double()
    theirs = torch.nn.LSTM(dim, dim, layers).double()
    with torch.no_grad():
        for number, layer in enumerate(model.layers):
            layer.b.normal_()
            for ours, name in ((layer.w, "weight_ih"), (layer.u, "weight_hh"), (layer.b, "bias_ih")):
                getattr(theirs, f"{name}_l{number}").copy_(ours)
            getattr(theirs, f"bias_hh_l{number}").zero_()
    return model, theirs


def test_one_layer_is_torchs():
    model, theirs = pair(12, 1)
    layer = model.layers[0]
    x = torch.randn(9, 4, 12, dtype=torch.float64, requires_grad=True)
    start = [torch.randn(4, 12, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    y = x.detach().clone().requires_grad_()
    start_2 = [t.detach().clone().requires_grad_() for t in start]
    outputs, h, c = layer(x, *start)
    expected, (h_2, c_2) = theirs(y, tuple(t[None] for t in start_2))
    assert torch.allclose(outputs, expected) and torch.allclose(h, h_2[0]) and torch.allclose(c, c_2[0])
    weight = torch.randn_like(outputs)
    ((outputs * weight).sum() + h.sin().sum() + (c * c).sum()).backward()
    ((expected * weight).sum() + h_2.sin().sum() + (c_2 * c_2).sum()).backward()
    assert torch.allclose(x.grad, y.grad)
    assert torch.allclose(layer.w.grad, theirs.weight_ih_l0.grad)
    assert torch.allclose(layer.u.grad, theirs.weight_hh_l0.grad)
    assert torch.allclose(layer.b.grad, theirs.bias_ih_l0.grad)
    for ours, other in zip(start, start_2, strict=True):
        assert torch.allclose(ours.grad, other.grad)


def test_layers_are_stacked():
    model, theirs = pair(12, 3)
    ids = torch.randint(30, (4, 16))
    expected, _ = theirs(model.embed(ids).transpose(0, 1))
    assert torch.allclose(model.hidden(ids), expected.transpose(0, 1))


def test_the_formulas():
    """The gates as the file's first lines write them, for one step of one neuron's vector."""
    model, _ = pair(4, 1)
    layer = model.layers[0]
    x, h, c = (torch.randn(1, 4, dtype=torch.float64) for _ in range(3))
    (w_i, w_f, w_g, w_o), (u_i, u_f, u_g, u_o) = layer.w.split(4), layer.u.split(4)
    b_i, b_f, b_g, b_o = layer.b.split(4)
    i = torch.sigmoid(x @ w_i.T + h @ u_i.T + b_i)
    f = torch.sigmoid(x @ w_f.T + h @ u_f.T + b_f)
    o = torch.sigmoid(x @ w_o.T + h @ u_o.T + b_o)
    g = torch.tanh(x @ w_g.T + h @ u_g.T + b_g)
    cell = f * c + i * g
    outputs, hidden, after = layer(x[None], h, c)
    assert torch.allclose(after, cell)
    assert torch.allclose(hidden, o * torch.tanh(cell)) and torch.equal(hidden, outputs[0])


def test_gradients_are_there_in_evaluation_too():
    """In f32, which runs in other kernels than f64."""
    model, _ = pair(8, 2)
    model.float().eval()
    ids = torch.randint(30, (2, 7))
    model(ids).square().sum().backward()
    in_evaluation = [p.grad.clone() for p in model.parameters()]
    model.train().zero_grad()
    model(ids).square().sum().backward()
    assert all(torch.allclose(a, p.grad, atol=1e-5) for a, p in zip(in_evaluation, model.parameters(), strict=True))
