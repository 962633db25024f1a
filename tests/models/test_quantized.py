"""Matrices in int8: within half a scale of what was rounded, and products equal to those of the rounded weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wenlu.models.lstm import Layer
from wenlu.models.quantized import Int8Embedding, Int8Layer, Int8Linear, Int8Matrix, int8_product, rounded


@pytest.fixture
def weight():
    weight = torch.randn(37, 53, generator=torch.Generator().manual_seed(1))
    weight[4] = 0
    weight[5] *= 1e-20
    return weight


def filled(linear: nn.Linear) -> Int8Linear:
    form = Int8Linear(linear)
    form.fill(linear.weight)
    return form


def test_rounded_to_the_nearest(weight):
    numbers, scale = rounded(weight)
    assert numbers.dtype == torch.int8 and numbers.abs().max() == 127 and not numbers[4].any()
    assert ((numbers * scale[:, None] - weight).abs() <= scale[:, None] * 0.5001).all()
    assert torch.equal(rounded(numbers * scale[:, None])[0], numbers), "what is rounded already stays"
    assert torch.equal(rounded(-weight)[0], -numbers), "it is symmetric"


@pytest.mark.parametrize("rows", [1, 3, 8, 9, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_product_is_that_of_the_rounded_weights(weight, rows, dtype):
    numbers, scale = rounded(weight)
    x = torch.randn(rows, 53, generator=torch.Generator().manual_seed(2)).to(dtype)
    true = F.linear(x.float(), numbers * scale[:, None], torch.ones(37))
    within = 1e-4 if dtype == torch.float32 else 2**-6 * true.abs().max()
    with torch.inference_mode():
        y = int8_product(x, numbers, scale, torch.ones(37, dtype=dtype))
    assert y.dtype == dtype and (y - true).abs().max() < within
    assert (int8_product(x, numbers, scale, torch.ones(37, dtype=dtype)) - true).abs().max() < within


def test_gradients_flow_to_what_stands_before():
    form = filled(nn.Linear(20, 10))
    x = torch.randn(3, 20, requires_grad=True)
    form(x).sum().backward()
    assert torch.allclose(x.grad[0], form.dequantized().sum(0), atol=1e-5)


def test_scales_stay_in_f32_and_follow_the_device():
    form = filled(nn.Linear(20, 10)).bfloat16()
    assert form.scale.dtype == torch.float32 and form.weight.dtype == torch.int8
    assert form.bias.dtype == form.dequantized().dtype == torch.bfloat16
    assert form.to("meta").scale.device.type == "meta"


def test_an_embedding_reads_rows_and_heads():
    table = nn.Embedding(30, 12)
    form = Int8Embedding(table)
    form.fill(table.weight)
    ids = torch.tensor([[3, 0], [29, 3]])
    assert torch.equal(form(ids), form.dequantized()[ids])
    assert form.bfloat16()(ids).dtype == torch.bfloat16


def test_an_lstm_reads_one_token_as_it_reads_many():
    layer = Layer(16)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-0.3, 0.3)
    form = Int8Layer(layer)
    form.w.fill(layer.w)
    form.u.fill(layer.u)
    x, h, c = torch.randn(5, 2, 16), torch.zeros(2, 16), torch.zeros(2, 16)
    with torch.inference_mode():
        whole, last, cell = form(x, h, c)
        for token, expected in zip(x, whole):
            y, h, c = form(token[None], h, c)
            assert torch.allclose(y[0], expected, atol=1e-5)
    assert torch.allclose(h, last, atol=1e-5) and torch.allclose(c, cell, atol=1e-5)


def test_modules_say_their_sizes():
    assert repr(filled(nn.Linear(20, 10))) == "Int8Linear(out=10, in=20)"
    assert isinstance(filled(nn.Linear(20, 10)), Int8Matrix)
