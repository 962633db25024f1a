"""Decoder-only transformers: GPT-2 (Radford et al. 2019), Llama (Touvron et al. 2023), Mistral (Jiang et al. 2023),
Qwen2 (Yang et al. 2024), Qwen3 (Yang et al. 2025).

One architecture, told apart by the configuration: learned positions, LayerNorm, biases and GELU for gpt2; rotary
positions, RMSNorm and SwiGLU for llama; a sliding window besides for mistral, biases of
queries, keys and values for qwen2, QK-norm for qwen3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.models.block import Block, Blocks, norm
from wenlu.models.cache import KeyValueCache, causal_mask
from wenlu.models.config import ModelConfig
from wenlu.models.layers import dropout, project
from wenlu.models.position import Rotary

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class GPT(nn.Module):
    """logits = head(hidden(ids))."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config = config.resolved()
        self.embed = nn.Embedding(config.vocab, config.dim)
        learned = config.family == "gpt2"
        self.position_embed = nn.Embedding(config.context, config.dim) if learned else None
        self.rotary = None if learned else Rotary(config)
        self.blocks = Blocks(Block(config, layer) for layer in range(config.layers))
        self.norm = norm(config)
        self.lm_head = None if config.tied else nn.Linear(config.dim, config.vocab, bias=False)

    def hidden(
        self,
        ids: Int[Tensor, "batch seq"],
        positions: Int[Tensor, "batch seq"] | None = None,
        segments: Int[Tensor, "batch seq"] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        """The last layer's states, normalised.

        Positions count on from what the cache holds of each row, unless given. With `segments` (documents packed in
        one row, each token's document number) tokens see only their own document's. Keys and values are added to
        `cache`.
        """
        seq, window = ids.shape[1], self.config.window
        if segments is not None and cache is not None:
            raise UserError("packed documents (segments) cannot be read with a cache: read them one by one")
        if positions is None:
            positions = slice(0, seq) if cache is None else cache.places(seq)
            self._make_room(seq if cache is None else cache.reach(seq))
        elif not torch.compiler.is_compiling():
            if positions.min() < 0:
                raise UserError(f"positions are counted from 0, and {int(positions.min())} is asked for")
            self._make_room(int(positions.max()) + 1)
        mask = None if segments is None else _same_document(segments)
        if cache is not None:
            mask = cache.sees(seq)
        x = self.embed(ids)
        if self.position_embed is not None:
            x = x + self.position_embed.weight[positions]
        x = dropout(x, self.config.dropout, self.training)
        in_window = mask
        if window and cache is not None:
            in_window = cache.sees(seq, window)
        elif window and seq > window:
            near = causal_mask(seq, 0, ids.device).triu(1 - window)
            in_window = near if mask is None else mask & near
        x = self.blocks(x, self.rotary, positions, mask, in_window, cache)
        if cache is not None:
            cache.advance(seq)
        return self.norm(x)

    def head(self, hidden: Float[Tensor, "... dim"]) -> Float[Tensor, "... vocab"]:
        """Logits of the next token."""
        return project(hidden, self.lm_head or self.embed)

    def forward(self, ids: Int[Tensor, "batch seq"], **context) -> Float[Tensor, "batch seq vocab"]:
        return self.head(self.hidden(ids, **context))

    def new_cache(self, batch: int, length: int = 0) -> KeyValueCache:
        """An empty cache for `batch` texts, with room for `length` tokens to begin with."""
        config = self.config
        return KeyValueCache((config.layers, batch, config.kv_heads, length, config.head_dim), self.norm.weight)

    def _make_room(self, length: int) -> None:
        if self.rotary is not None:
            self.rotary.extend(length)
        elif length > self.config.context:
            raise UserError(
                f"gpt2 has learned {self.config.context} positions, and {length} are asked for: shorten the text"
            )


def _same_document(segments: Int[Tensor, "batch seq"]) -> Tensor:
    """[batch, 1, seq, seq], true where a token may look: within its document, not ahead."""
    same = segments[:, :, None] == segments[:, None, :]
    return same.tril()[:, None]
