"""The transformer block and its feed-forward layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from wenlu.models.attention import Attention
from wenlu.models.config import PLAIN, ModelConfig
from wenlu.models.layers import ACTIVATIONS, RMSNorm, add_dropped, dropout, gated

if TYPE_CHECKING:
    from jaxtyping import Float


def norm(config: ModelConfig) -> nn.Module:
    """LayerNorm for gpt2 and bert, RMSNorm for the others."""
    if config.family in PLAIN:
        return nn.LayerNorm(config.dim, eps=config.norm_eps)
    return RMSNorm(config.dim, config.norm_eps)


class FeedForward(nn.Module):
    """down(act(up(x))), or down(act(gate(x)) · up(x)) with gate and up in one matrix."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gated = config.gated if config.family == "t5" else config.family not in PLAIN
        bias = config.mlp_bias or config.family in PLAIN
        parts = (config.ffn, config.ffn) if self.gated else (config.ffn,)
        self.up = nn.Linear(config.dim, sum(parts), bias=bias)
        self.stacked = {"up.weight": parts}
        self.down = nn.Linear(config.ffn, config.dim, bias=bias)
        self.activation = config.activation
        self.dropout = config.dropout if config.family == "t5" else 0.0

    def forward(self, x: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
        up = self.up(x)
        wide = gated(up, self.activation) if self.gated else ACTIVATIONS[self.activation](up)
        return self.down(dropout(wide, self.dropout, self.training))


class Block(nn.Module):
    """Pre-norm residual block: attention, then the feed-forward layer."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.norm_1, self.norm_2 = norm(config), norm(config)
        self.attention = Attention(config, layer)
        self.feed_forward = FeedForward(config)
        self.dropout = config.dropout

    def forward(
        self, x: Float[Tensor, "batch seq dim"], rotary, positions, mask, cache
    ) -> Float[Tensor, "batch seq dim"]:
        x = self.add(x, self.attention(self.norm_1(x), rotary, positions, mask, cache))
        return self.add(x, self.feed_forward(self.norm_2(x)))

    def add(self, x: Tensor, new: Tensor) -> Tensor:
        """x + new, some of `new` dropped out."""
        return add_dropped(x, new, self.dropout, self.training)


class Blocks(nn.ModuleList):
    """Blocks, each over what the one before gave; those with a window see what `in_window` says."""

    def forward(
        self, x: Float[Tensor, "batch seq dim"], rotary, positions, mask, in_window, cache
    ) -> Float[Tensor, "batch seq dim"]:
        for block in self:
            x = block(x, rotary, positions, in_window if block.attention.window else mask, cache)
        return x


class PostNormBlock(Block):
    """The block as Vaswani et al. (2017) had it: normalised is what goes on to the next layer."""

    def forward(
        self, x: Float[Tensor, "batch seq dim"], rotary, positions, mask, cache
    ) -> Float[Tensor, "batch seq dim"]:
        x = self.norm_1(self.add(x, self.attention(x, rotary, positions, mask, cache)))
        return self.norm_2(self.add(x, self.feed_forward(x)))
