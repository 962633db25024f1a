"""The layers of a fast model: each asks its chooser (`kernels.Chooser`) for what is quicker, else it is as before."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wenlu.models.attention import Attention
from wenlu.models.block import Blocks, FeedForward
from wenlu.models.layers import RMSNorm
from wenlu.models.lstm import Layer, step
from wenlu.models.position import Rotary
from wenlu.models.quantized import Int8Embedding, Int8Linear, Int8Matrix
from wenlu.models.t5 import CrossAttention


class FastBlocks(Blocks):
    """Transformer blocks while the model is fast: few new tokens after those of a cache by one kernel."""

    def forward(self, x: Tensor, rotary: Rotary | None, positions, mask, in_window, cache) -> Tensor:
        y = self.chooser.blocks(self, x, rotary, positions, cache)
        return super().forward(x, rotary, positions, mask, in_window, cache) if y is None else y


class _FastAttended:
    def attended(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        dropping = self.training and self.dropout
        y = None if dropping else self.chooser.attention(q, k, v, mask, self.scale, self.causal)
        return super().attended(q, k, v, mask) if y is None else y


class FastAttention(_FastAttended, Attention):
    """Attention while the model is fast."""

    def _split(self, qkv: Tensor, rotary: Rotary | None, positions) -> tuple[Tensor, ...]:
        with self.chooser.passes():
            return super()._split(qkv, rotary, positions)


class FastCrossAttention(_FastAttended, CrossAttention):
    """The same to a source."""


class FastFeedForward(FeedForward):
    """The feed-forward layer while the model is fast: its gates are one pass."""

    def forward(self, x: Tensor) -> Tensor:
        with self.chooser.passes():
            return super().forward(x)


class FastRMSNorm(RMSNorm):
    """The norm while the model is fast: one pass."""

    def forward(self, x: Tensor) -> Tensor:
        with self.chooser.passes():
            return super().forward(x)


class FastLinear(nn.Linear):
    """`nn.Linear` while the model is fast."""

    def forward(self, x: Tensor) -> Tensor:
        return self.chooser.product(x, self.weight, None, self.bias)

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.chooser.product(x, self.weight, None, bias)


class FastEmbedding(nn.Embedding):
    """An embedding that may serve as a head, while the model is fast."""

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.chooser.product(x, self.weight, None, bias)


class FastLayer(Layer):
    """An LSTM's layer while the model is fast: torch's operator is made for long texts, one token takes it long."""

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if len(x) > 1 or torch.is_grad_enabled() or not self.chooser.kernels.take(x[0], self.w):
            return super().forward(x, h, c)
        product = self.chooser.product
        h, c = step(product(x[0], self.w, None, self.b) + product(h, self.u), c)
        return h[None], h, c


class _FastInt8:
    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.chooser.product(x, self.weight, self.scale, bias)


class FastInt8Matrix(_FastInt8, Int8Matrix):
    """The same in int8: a matrix alone."""


class FastInt8Linear(_FastInt8, Int8Linear):
    """The same in int8."""


class FastInt8Embedding(_FastInt8, Int8Embedding):
    """The same in int8."""


FAST = {
    Blocks: FastBlocks,
    Attention: FastAttention,
    CrossAttention: FastCrossAttention,
    FeedForward: FastFeedForward,
    RMSNorm: FastRMSNorm,
    nn.Linear: FastLinear,
    nn.Embedding: FastEmbedding,
    Layer: FastLayer,
    Int8Matrix: FastInt8Matrix,
    Int8Linear: FastInt8Linear,
    Int8Embedding: FastInt8Embedding,
}
"""By the class that a layer has otherwise."""
