"""Attention with grouped key and value heads (Vaswani et al. 2017; Ainslie et al. 2023)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenlu.models import passes
from wenlu.models.cache import KeyValueCache
from wenlu.models.config import PLAIN, ModelConfig
from wenlu.models.layers import dropout as dropped
from wenlu.models.layers import rms_norm
from wenlu.models.position import Rotary
from wenlu.models.size import SHORT, SHORT_COPIED

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def attend(
    q: Float[Tensor, "batch heads new head_dim"],
    k: Float[Tensor, "batch kv_heads seq head_dim"],
    v: Float[Tensor, "batch kv_heads seq head_dim"],
    mask: Bool[Tensor, "*batch #new seq"] | Float[Tensor, "*batch #new seq"] | None,
    dropout: float = 0.0,
    scale: float | None = None,
    causal: bool = True,
) -> Float[Tensor, "batch heads new head_dim"]:
    """softmax(scale · q kᵀ) v, the scale being 1 / √head_dim unless given.

    The mask is true where a token may look, or it is a bias: numbers added before the softmax. Without a mask, every
    token sees itself and those before it (`causal`), or all; a token alone sees all.
    """
    # On a processor no fused kernel has dropout, or a bias that learns.
    unfused = dropout or (mask is not None and mask.requires_grad)
    short = k.shape[2] <= (SHORT_COPIED if q.dtype == torch.bfloat16 else SHORT)
    # To ask for the precision would break a compiled graph, and torch would go on without one, other dropout and all.
    if q.is_cpu and (
        unfused or (short and not torch.compiler.is_compiling() and torch.get_float32_matmul_precision() == "medium")
    ):
        return attend_explicitly(q, k, v, mask, dropout, scale, causal)
    alone = q.shape[2] == 1
    grouped = q.shape[1] != k.shape[1]
    causal = causal and mask is None and not alone
    if mask is not None and mask.is_floating_point():
        mask = mask.to(q.dtype)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=grouped
    )


def attend_explicitly(
    q: Float[Tensor, "batch heads new head_dim"],
    k: Float[Tensor, "batch kv_heads seq head_dim"],
    v: Float[Tensor, "batch kv_heads seq head_dim"],
    mask: Bool[Tensor, "*batch #new seq"] | Float[Tensor, "*batch #new seq"] | None,
    dropout: float = 0.0,
    scale: float | None = None,
    causal: bool = True,
) -> Float[Tensor, "batch heads new head_dim"]:
    """`attend`, with the weights of attention as a tensor of its own."""
    batch, heads, new, head_dim = q.shape
    seq, repeats = k.shape[2], heads // k.shape[1]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    if passes.in_use(q):
        return passes.attend(q, k, v, mask, dropout, scale or 1 / math.sqrt(head_dim), causal)
    q, k, v = q.reshape(-1, new, head_dim), k.reshape(-1, seq, head_dim), v.reshape(-1, seq, head_dim)
    hidden = torch.zeros((), dtype=q.dtype, device=q.device)
    if mask is not None and mask.is_floating_point():
        hidden = mask.to(q.dtype).expand(batch, heads, new, seq).reshape(-1, new, seq)
    elif mask is not None:
        hidden = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(~mask, float("-inf"))
        hidden = hidden.expand(batch, heads, new, seq).reshape(-1, new, seq)
    elif causal and new > 1:
        hidden = torch.full((new, seq), float("-inf"), dtype=q.dtype, device=q.device).triu_(1)
    weights = torch.baddbmm(hidden, q, k.mT, alpha=scale or 1 / math.sqrt(head_dim)).softmax(dim=-1)
    return torch.bmm(dropped(weights, dropout, True), v).view(batch, heads, new, head_dim)


class Attention(nn.Module):
    """x → out(attend(q, k, v)); the projections to q, k and v stand in one matrix, as `stacked` says."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        bias = config.attention_bias or config.family in PLAIN
        self.scale = 1.0 if config.family == "t5" else None
        self.window = config.window if layer >= config.full_layers else 0
        parts = tuple(n * self.head_dim for n in (self.heads, self.kv_heads, self.kv_heads))
        self.qkv = nn.Linear(config.dim, sum(parts), bias=bias or config.family == "qwen2")
        self.out = nn.Linear(parts[0], config.dim, bias=bias)
        self.stacked = {"qkv.weight": parts}
        self.eps, self.dropout, self.causal = config.norm_eps, config.dropout, config.family not in ("bert", "t5")
        self.q_norm = self.k_norm = None
        if config.family == "qwen3":
            self.q_norm = nn.Parameter(torch.ones(self.head_dim))
            self.k_norm = nn.Parameter(torch.ones(self.head_dim))

    def forward(
        self, x: Float[Tensor, "batch seq dim"], rotary: Rotary | None, positions, mask, cache: KeyValueCache | None
    ) -> Float[Tensor, "batch seq dim"]:
        batch, seq, _ = x.shape
        q, k, v = self._split(self.qkv(x), rotary, positions)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        return self.out(self.attended(q, k, v, mask).transpose(1, 2).reshape(batch, seq, -1))

    def attended(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """`attend`, with what this layer drops and how it scales."""
        return attend(q, k, v, mask, self.dropout if self.training else 0.0, self.scale, self.causal)

    def _split(self, qkv: Float[Tensor, "batch seq width"], rotary: Rotary | None, positions) -> tuple[Tensor, ...]:
        """Queries [batch, heads, seq, head_dim], keys and values, normalised and turned where the model does so."""
        if passes.in_use(qkv):
            sizes, norms = (self.heads, self.kv_heads, self.head_dim), (self.q_norm, self.k_norm)
            angles = None if rotary is None else (rotary.cos, rotary.sin)
            return passes.heads(qkv, sizes, norms, self.eps, angles, positions)
        heads = qkv.unflatten(-1, (-1, self.head_dim))
        qk, v = heads.split((self.heads + self.kv_heads, self.kv_heads), dim=2)
        if self.q_norm is not None:
            weights = torch.cat((self.q_norm.expand(self.heads, -1), self.k_norm.expand(self.kv_heads, -1)))
            qk = rms_norm(qk, weights, self.eps)
        if rotary is not None:
            qk = rotary(qk, positions)
        q, k = qk.split((self.heads, self.kv_heads), dim=2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
