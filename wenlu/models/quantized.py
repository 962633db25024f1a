"""Weights in int8: each row of a matrix is whole numbers from -127 to 127 times a scale of its own, in f32.

Activations stay as they are, and biases, norms and positions too. Such a model reads and writes; it is not trained
(gradients do flow through it, to an adapter beside it).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenlu.models.lstm import Layer, step

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Int8

LARGEST = 127


def rounded(weight: Float[Tensor, "out in"]) -> tuple[Int8[Tensor, "out in"], Float[Tensor, " out"]]:
    """Whole numbers and a scale for each row, symmetric about zero: weight ≈ numbers · scale, to the nearest."""
    weight = weight.detach().float()
    scale = weight.abs().amax(1) / LARGEST
    scale = torch.where(scale > 0, scale, 1.0)
    return (weight / scale[:, None]).round().clamp(-LARGEST, LARGEST).to(torch.int8), scale


def int8_product(
    x: Float[Tensor, "... in"],
    weight: Int8[Tensor, "out in"],
    scale: Float[Tensor, " out"],
    bias: Float[Tensor, " out"] | None = None,
) -> Float[Tensor, "... out"]:
    """x Wᵀ · scale + bias by torch's own operators, the whole numbers taken for floats on the way.

    `aten._weight_int8pack_mm` takes longer (measured), but for one row of a large head.
    """
    y = (F.linear(x, weight.to(x.dtype)) * scale).to(x.dtype)
    return y if bias is None else y + bias


class Int8Matrix(nn.Module):
    """A matrix [out, in] in int8 with its rows' scales."""

    def __init__(self, outputs: int, inputs: int, like: Tensor):
        super().__init__()
        self.register_buffer("weight", torch.zeros(outputs, inputs, dtype=torch.int8, device=like.device))
        self.register_buffer("scale", torch.ones(outputs, device=like.device))
        # Of the type in which the model computes; the scales stay in f32 whatever that is.
        self.register_buffer("form", like.new_empty(0), persistent=False)

    def fill(self, weight: Float[Tensor, "out in"]) -> None:
        """Take these weights, rounded."""
        self.weight, self.scale = rounded(weight)

    def product(self, x: Float[Tensor, "... in"], bias: Tensor | None = None) -> Float[Tensor, "... out"]:
        """x Wᵀ + bias."""
        return int8_product(x, self.weight, self.scale, bias)

    def dequantized(self) -> Float[Tensor, "out in"]:
        """The weights as the model computes with them."""
        return (self.weight * self.scale[:, None]).to(self.form.dtype)

    def _apply(self, fn, recurse=True):
        scale = self.scale
        super()._apply(fn, recurse)
        self.scale = scale.to(self.scale.device)
        return self

    def extra_repr(self) -> str:
        return f"out={self.weight.shape[0]}, in={self.weight.shape[1]}"


class Int8Linear(Int8Matrix):
    """`nn.Linear` with an int8 matrix; the bias is kept."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.out_features, linear.in_features, linear.weight)
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        return self.product(x, self.bias)


class Int8Embedding(Int8Matrix):
    """`nn.Embedding` with an int8 table, which may serve as a head's matrix too."""

    def __init__(self, embedding: nn.Embedding):
        super().__init__(*embedding.weight.shape, embedding.weight)

    def forward(self, ids: Int[Tensor, ...]) -> Float[Tensor, "... dim"]:
        return (self.weight[ids] * self.scale[ids].unsqueeze(-1)).to(self.form.dtype)


class Int8Layer(nn.Module):
    """An LSTM's layer with `w` and `u` in int8: one token by products of few rows, longer texts by torch's operator."""

    def __init__(self, layer: Layer):
        super().__init__()
        self.w, self.u = (Int8Matrix(*matrix.shape, matrix) for matrix in (layer.w, layer.u))
        self.b = layer.b

    def forward(
        self, x: Float[Tensor, "seq batch dim"], h: Float[Tensor, "batch dim"], c: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "seq batch dim"], Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        if len(x) == 1 and not torch.is_grad_enabled():
            h, c = step(self.w.product(x[0], self.b) + self.u.product(h), c)
            return h[None], h, c
        return Layer.run(x, h, c, self.w.dequantized(), self.u.dequantized(), self.b)


def matrices(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """The modules that int8 forms stand in for: what holds each, its name there, and itself.

    All of `nn.Linear`, an LSTM's layers, and the table of tokens. Positions, types and T5's distances stay: they are
    small, and looked up by slices.
    """
    for holder in list(model.modules()):
        for name, module in list(holder.named_children()):
            if type(module) in FORMS and (type(module) is not nn.Embedding or (holder is model and name == "embed")):
                yield holder, name, module


FORMS = {nn.Linear: Int8Linear, nn.Embedding: Int8Embedding, Layer: Int8Layer}


def to_int8_form(model: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Put modules of int8, still empty, in the places of those that have one: pairs of what was there and what is."""
    pairs = []
    for holder, name, module in matrices(model):
        form = FORMS[type(module)](module).train(module.training)
        setattr(holder, name, form)
        pairs.append((module, form))
    return pairs


def is_int8(model: nn.Module) -> bool:
    """Whether a model has its matrices in int8."""
    return any(isinstance(module, Int8Matrix) for module in model.modules())
